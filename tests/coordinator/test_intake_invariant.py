"""The invariant of intake.py: each update under way is in one queue, and the sums are those of the admitted."""

from __future__ import annotations

import random

import pytest
from machines import HASH, P, make_update

from edgefl import codecs
from edgefl.coordinator.updates import intake as intake_module
from edgefl.coordinator.updates.intake import RoundIntake
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Splitter

DEVICES = [f"d{i}" for i in range(8)]


def parts_of(blob: bytes) -> list[Envelope]:
    splitter = Splitter(blob, 512, kind=Kind.UPDATE, codec=1, federation=HASH, round=1, version=0)
    return [Envelope.from_bytes(splitter.part(i)) for i in range(splitter.parts)]


UPDATES = [parts_of(make_update()), parts_of(bytes(1500))]  # the second one is shorter


def check(intake: RoundIntake, seen: set[int]) -> None:
    queues = [intake._waiting, intake._to_ask, intake._expected, intake._to_retry]
    seen.update(number for number, queue in enumerate(queues) if queue)
    stand = sorted(device for queue in queues for device in queue)
    assert stand == sorted(intake._arrivals), "each update stands in exactly one queue"
    assert all(arrival.queue[device] is arrival for device, arrival in intake._arrivals.items())
    admitted = [a for device, a in intake._arrivals.items() if device not in intake._waiting]
    assert intake._reserved == sum(a.assembler.total for a in admitted)
    assert intake.buffered == sum(a.assembler.buffered for a in admitted)
    assert intake._owed == sum(a.owed for a in admitted)
    assert not any(a.owed or a.assembler.buffered for a in intake._waiting.values())
    assert not any(a.owed for queue in (intake._to_ask, intake._to_retry) for a in queue.values())
    times = [a.look_at for a in intake._expected.values()]
    assert times == sorted(times)


@pytest.mark.parametrize("seed", range(30))
def test_each_update_under_way_stands_in_one_queue(seed, monkeypatch):
    monkeypatch.setattr(intake_module, "BUDGET_BYTES", 20_000)
    monkeypatch.setattr(intake_module, "WINDOW", 5)
    monkeypatch.setattr(intake_module, "GROWTH", 0.001)
    monkeypatch.setattr(intake_module, "REQUEST", 3)
    rng = random.Random(seed)
    intake = RoundIntake(codecs.get("raw32"), 4 * P, federation=HASH, round=1, version=0, unasked=2)
    now, whole = 0.0, 0
    seen: set[int] = set()
    for _ in range(1500):
        device, now = rng.choice(DEVICES), now + rng.choice([0.0, 0.0, 0.0, 1.0])
        what = rng.random()
        if what < 0.02:
            intake.drop(device)
        elif what < 0.03:
            intake.drop_all()
        else:
            whole += intake.add(device, rng.choice(UPDATES[what > 0.95]), now) is not None
        check(intake, seen)
        if rng.random() < 0.7:
            intake.ask(now, lambda d: rng.random() < 0.9)
            check(intake, seen)
    assert whole and seen == {0, 1, 2, 3}, "every queue was used"
