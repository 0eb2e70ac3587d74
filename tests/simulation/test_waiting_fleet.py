"""Fleets with a tenth that is slow or hung for the whole run: the others set the pace, and the tenth is named."""

from __future__ import annotations

import statistics

import pytest

from edgefl.simulation.simulate import simulate

FLEET = {"devices": 30, "rounds": 50, "min_reports": 2, "deadline_s": 300, "codec": "raw32", "downlink": "raw32"}


def run(**options):
    return simulate("mlp:64-10", "digits", seed=1, workers=2, **(FLEET | options)).rounds


@pytest.fixture(scope="module")
def healthy_s() -> float:
    return statistics.median(record.seconds for record in run())


@pytest.mark.parametrize("faults", ["slow:0.1:100", "hung:0.1"])
def test_i07_a_tenth_of_the_fleet_that_is_slow_or_hung_does_not_set_the_pace(healthy_s, faults):
    records = run(faults=faults)
    assert statistics.median(record.seconds for record in records) <= 1.5 * healthy_s
    skipped = {device for record in records[1:] for device in record.missed}
    assert len(skipped) == 3
    for record in records[1:]:
        assert set(record.missed) == skipped.difference(record.devices) and len(record.devices) >= 27
