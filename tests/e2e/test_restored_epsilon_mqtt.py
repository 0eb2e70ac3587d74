"""Rounds with noise over a real broker: an aggregator that is restored, and a new one, go on with what helpers know."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from daemons import Running
from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.daemon import HelperDaemon
from enrolled import unpack
from keyed_fleet import KeyedFleet

from edgefl.history_record import RoundRecord
from edgefl.keys import enrolment
from edgefl.machine import Stop
from edgefl.settings import files

NAMES = ("pi-01", "pi-02", "pi-03")
NOISY = (
    "privacy.masked=true", "privacy.helpers=north", "privacy.least=3", "privacy.helper_s=60", "rounds.expect=3",
    "rounds.min_reports=3", "privacy.noise=independent", "privacy.sigma=5", "privacy.bits=24", "privacy.budget=1000",
)  # fmt: skip


def begin(fleet: KeyedFleet) -> Running:
    """Devices and a helper; the aggregator."""
    home = fleet.folder / "helper-north"
    home.mkdir()
    fleet.enrol(*NAMES)
    unpack(*enrolment.add(fleet.keys, ["north"], role="helper"), home)
    fleet.reload()
    usual = [f"state_dir={home / 'state'}", "mqtt.reconnect_cap_s=0.3", "least.devices=3"]
    fleet._keep(Running(HelperDaemon(files.load(home / "helper.toml", HelperConfig, usual))))
    for name in NAMES:
        fleet.agent(name)
    return fleet.aggregator(*NOISY)


def stopped(fleet: KeyedFleet, aggregator: Running, rounds: int) -> list[RoundRecord]:
    """The records, once there are so many, and the aggregator has stopped."""
    fleet.wait(rounds)
    aggregator.host.post(Stop())
    assert aggregator.join(20.0)
    return fleet.records()


def goes_on(fleet: KeyedFleet, spent: float) -> list[RoundRecord]:
    """What it does in the next epoch, once more than `spent` was: no round is lost."""
    enrolment.next_epoch(fleet.keys)
    before = len(fleet.records())
    aggregator = fleet.aggregator(*NOISY, take_over=True)
    found = stopped(fleet, aggregator, before + 2)[before:]
    assert [record.state for record in found[:2]] == ["committed"] * 2, [record.why for record in found]
    assert spent < found[0].epsilon < found[1].epsilon
    return found


def test_i38_a_restored_aggregator_and_a_new_run_go_on_without_a_hand_at_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dp_accounting")
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")
    state, backup = tmp_path / "state", tmp_path / "backup"
    with KeyedFleet(tmp_path, guard=False) as fleet:
        known = len(stopped(fleet, begin(fleet), 2))
        shutil.copytree(state, backup)
        newest = stopped(fleet, fleet.aggregator(*NOISY), known + 3)[-1]

        shutil.rmtree(state)
        shutil.copytree(backup, state)
        found = goes_on(fleet, newest.epsilon)
        assert found[0].round > newest.round

        state.rename(tmp_path / "first run")
        newest, found = found[-1], goes_on(fleet, found[-1].epsilon)
        assert found[0].round == 1
