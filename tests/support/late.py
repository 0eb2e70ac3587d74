"""Coordinators that take late updates, for tests."""

from __future__ import annotations

import msgspec
from machines import commit_of, make_coordinator, make_update, open_round, report

from edgefl.history_record import RoundRecord

FOLD = {"late": "fold", "late_rounds": 2, "min_reports": 1, "deadline_s": 60}


def second_round(*devices, **config):
    """Round 2 is open on version 1; of `devices`, the first was in round 1, whose goal was 1."""
    coordinator = open_round(*devices, **(FOLD | {"goal": 1} | config))
    assert commit_of(report(coordinator, devices[0], blob=make_update(0.0)))
    return coordinator


def restarted(coordinator, records, **config):
    """Another process on what the first one committed."""
    records = [msgspec.json.decode(msgspec.json.encode(r), type=RoundRecord) for r in records]
    start = {"round": coordinator.round, "version": coordinator.version, "attempt": 2, "recent": records}
    return make_coordinator(params=coordinator.params, start=start, **(FOLD | config))
