"""The simulation's lasting faults (dst/lasting.py) do to a device what they say."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest
from dst.lasting import HANDICAPS, Lasting
from dst.schedule import Schedule
from dst.violation import Violation
from dst.world import World

from edgefl.device.patience import Patience

PATIENT = next(s for s in map(Schedule.draw, range(1000)) if len(s.devices) == 6 and s.config.goal is None)


CONFIG = msgspec.structs.replace(
    PATIENT.config, mode="sync", deadline_s=60.0, fraction=1.0, over_select=None, goal=None, late="drop", min_reports=2,
    evaluate_every=None, expect=0,
)  # fmt: skip
CALM = replace(PATIENT, config=CONFIG, faults=(), late=(), slow=0.0, earlier_run=False, heal_at=300.0)


def counted(handicap: str) -> set[str]:
    """The devices that count in a federation without other faults, of which the first one has this handicap."""
    handicaps = {CALM.devices[0]: handicap} if handicap else {}
    world = World(replace(CALM, lasting=Lasting(handicaps, heals=False, factor=50.0)))
    world.run()
    return {name for record in world.aggregator.disk.rounds for name in record.devices}


def test_without_handicap_all_devices_count():
    assert counted("") == set(PATIENT.devices)


@pytest.mark.parametrize("handicap", [t for t in HANDICAPS if t not in ("frozen", "slow link")])
def test_a_device_with_a_handicap_never_counts_and_the_others_do(handicap):
    assert counted(handicap) == set(PATIENT.devices[1:])


def test_handicap_comes_to_at_most_a_third_of_the_devices_and_leaves_enough():
    kinds = set()
    for seed in range(300):
        schedule = Schedule.draw(seed)
        handicaps = schedule.lasting.handicaps
        assert len(handicaps) <= max(1, len(schedule.devices) // 3)
        assert len(schedule.devices) - len(handicaps) >= schedule.config.min_reports
        kinds |= set(handicaps.values())
    assert kinds == set(HANDICAPS)


def crawl(seed: int) -> None:
    """A federation without other faults on lines of so few bytes a second that a part takes longer than patience."""
    drawn = Schedule.draw(seed)
    line = random.Random(seed).uniform(8, 30)
    config = msgspec.structs.replace(drawn.config, deadline_s=600.0)
    world = World(replace(drawn, config=config, faults=(), earlier_run=False, lasting=Lasting(), heal_at=1500.0))
    world.broker.rates = dict.fromkeys(drawn.devices, line)
    world.run()


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_i07_on_slow_lines_nothing_that_is_on_its_way_is_asked_for_or_sent_again(first):
    for seed in range(first, first + 5):
        crawl(seed)


def test_without_its_patience_a_device_asks_again_for_what_still_arrives(monkeypatch):
    """That the test above can fail."""
    monkeypatch.setattr(Patience, "extend", lambda self: False)
    with pytest.raises(Violation, match="still passing"):
        for seed in range(20):
            crawl(seed)
