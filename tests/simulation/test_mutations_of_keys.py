"""Guards of a federation with keys, removed one at a time: the simulation's adversary must break a promise."""

from __future__ import annotations

import pytest
from dst.keys import is_keyed
from dst.schedule import Schedule
from dst.violation import Violation
from dst.world import World

from edgefl.coordinator.signing import Signing
from edgefl.device.session import DeviceSession
from edgefl.device.trust import Pinned
from edgefl.trust.seal import Sealed

REMOVED = {
    "seals are not verified": (Sealed, "is_signed", lambda *_: True, {"I01", "I07", "I20"}),
    "updates are not verified": (Signing, "check", lambda *_: None, {"I01", "I03"}),
    "claims are not verified": (Signing, "read_claim", lambda _, payload: payload.partition(b"\n")[0], {"I07"}),
    "old rounds are believed": (Pinned, "judge", lambda *_: None, {"I19"}),
    "what was seen is not stored": (DeviceSession, "_save_seen", lambda _: None, {"I19"}),
}


def broken_promise(schedules: int) -> str:
    for schedule in filter(is_keyed, map(Schedule.draw, range(schedules))):
        try:
            World(schedule).run()
        except Violation as violation:
            return violation.name
    return ""


@pytest.mark.parametrize(("owner", "method", "without", "promises"), REMOVED.values(), ids=REMOVED)
def test_a_guard_that_is_removed_is_missed(monkeypatch, owner, method, without, promises):
    monkeypatch.setattr(owner, method, without)
    assert broken_promise(400) in promises
