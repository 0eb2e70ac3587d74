"""The simulation's lasting faults (dst/lasting.py) do to a device what they say."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from dst.lasting import TROUBLES, Lasting
from dst.schedule import Schedule
from dst.world import World

PATIENT = next(s for s in map(Schedule.draw, range(1000)) if len(s.devices) == 6 and s.config.goal is None)


CONFIG = msgspec.structs.replace(
    PATIENT.config, mode="sync", deadline_s=60.0, fraction=1.0, over_select=None, goal=None, late="drop", min_reports=2,
    evaluate_every=None, expect=0,
)  # fmt: skip
CALM = replace(PATIENT, config=CONFIG, faults=(), late=(), slow=0.0, earlier_run=False, heal_at=300.0)


def counted(trouble: str) -> set[str]:
    """The devices that count in a federation without other faults, of which the first one has this trouble."""
    troubles = {CALM.devices[0]: trouble} if trouble else {}
    world = World(replace(CALM, lasting=Lasting(troubles, heals=False, factor=50.0)))
    world.run()
    return {name for record in world.aggregator.disk.rounds for name in record.devices}


def test_without_trouble_all_devices_count():
    assert counted("") == set(PATIENT.devices)


@pytest.mark.parametrize("trouble", [t for t in TROUBLES if t not in ("frozen", "slow link")])
def test_a_device_in_trouble_never_counts_and_the_others_do(trouble):
    assert counted(trouble) == set(PATIENT.devices[1:])


def test_trouble_comes_to_at_most_a_third_of_the_devices_and_leaves_enough():
    kinds = set()
    for seed in range(300):
        schedule = Schedule.draw(seed)
        troubles = schedule.lasting.troubles
        assert len(troubles) <= max(1, len(schedule.devices) // 3)
        assert len(schedule.devices) - len(troubles) >= schedule.config.min_reports
        kinds |= set(troubles.values())
    assert kinds == set(TROUBLES)
