"""Devices that hang, freeze or attack for good, and recover: a short form of `make soak-slow`, with real processes.

The deadline is five minutes: a round that waited for one of them would outlast the test's patience.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attackers import BootRaiser, OnePartSender
from brokers import Mosquitto, eventually
from soak_lasting import COMES_BACK_WITHIN, MoodyFleet, back_after, break_devices, check_named, mend_devices
from tail import Tail

PATIENCE_S = 60.0
ROUNDS = {"deadline_s": 300.0, "min_reports": 2, "interval_s": 0.0}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[MoodyFleet]:
    with Mosquitto() as broker, MoodyFleet(tmp_path / "run", broker.url, 4, journal=None, rounds=ROUNDS) as fleet:
        fleet.broker = broker
        yield fleet


def all_count(tail: Tail, devices: int) -> None:
    eventually(lambda: tail.read() and len(tail.records[-1].devices) == devices, PATIENCE_S)


@pytest.mark.parametrize("kind", ["hung", "frozen"])
def test_i07_rounds_go_on_without_a_device_that_hangs_and_with_it_when_it_is_back(fleet: MoodyFleet, kind: str) -> None:
    tail = Tail(fleet.folder / "state")
    all_count(tail, 4)
    break_devices(fleet, kind, ["dev-2"])
    began = len(tail.read())
    eventually(lambda: len(tail.read()) >= began + 5, PATIENCE_S)
    check_named(fleet, tail, ["dev-2"], began)
    mend_devices(fleet, kind, ["dev-2"])
    assert back_after(tail, "dev-2", tail.read()[-1].round + 1, PATIENCE_S) <= COMES_BACK_WITHIN
    fleet.check_alive()


def test_i07_signs_of_life_without_an_update_stall_nothing(fleet: MoodyFleet) -> None:
    tail, port = Tail(fleet.folder / "state"), fleet.broker.port
    all_count(tail, 4)
    with OnePartSender(port, fleet.federation, "mallory"), BootRaiser(port, fleet.federation, "trudy"):
        eventually(lambda: {"mallory", "trudy"} <= tail.read()[-1].missed.keys(), PATIENCE_S)
        began = len(tail.read())
        eventually(lambda: len(tail.read()) >= began + 5, PATIENCE_S)
    assert all(r.state == "committed" and len(r.devices) == 4 for r in tail.records[began:])
