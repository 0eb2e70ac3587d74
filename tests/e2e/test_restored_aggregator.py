"""An aggregator that is restored from a backup, over TLS: its devices don't follow it back before the root says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from brokers import eventually
from keyed_fleet import KeyedFleet

from edgefl.keys import enrolment
from edgefl.machine import Stop

DEVICES = ("pi-01", "pi-02")


@pytest.fixture(autouse=True)
def trusted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")


def test_i20_a_restored_aggregator_is_followed_in_a_new_epoch_only(tmp_path: Path) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    with KeyedFleet(tmp_path, guard=False) as fleet:
        fleet.enrol(*DEVICES)
        first = fleet.aggregator()
        agents = [fleet.agent(name) for name in DEVICES]
        fleet.wait(2)
        first.host.post(Stop())
        first.join(10.0)
        shutil.copytree(state, backup)
        second = fleet.aggregator()
        fleet.wait(len(fleet.records()) + 3)
        second.host.post(Stop())
        second.join(10.0)
        seen = [agent.host.machine.trust.seen for agent in agents]

        shutil.rmtree(state)
        shutil.copytree(backup, state)
        kept = len(fleet.records())
        fleet.aggregator("rounds.deadline_s=3", take_over=True)
        for agent, before in zip(agents, seen, strict=True):
            machine = agent.host.machine
            status = machine.status
            eventually(lambda s=status: s.trouble is not None and s.trouble.code == "signer", 15.0)
            assert "goes back" in status.trouble.text and "edgefl keys epoch" in status.trouble.text
            assert machine.trust.seen.version == before.version
        assert not [record for record in fleet.records()[kept:] if record.state == "committed"]

        enrolment.next_epoch(fleet.keys)
        eventually(lambda: sum(r.state == "committed" for r in fleet.records()[kept:]) >= 2, 60.0)
        assert all(agent.host.machine.trust.seen.epoch == seen[0].epoch + 1 for agent in agents)
