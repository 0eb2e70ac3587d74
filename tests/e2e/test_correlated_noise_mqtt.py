"""Correlated noise over a real broker: aggregator, agents and a helper in a process of its own, which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from brokers import eventually
from edgefl_broker.helper.store import HelperStore
from enrolled import unpack
from keyed_fleet import KeyedFleet

from edgefl.keys import enrolment
from edgefl.machine import Stop
from edgefl.privacy import accountant
from edgefl.privacy.accountant import Mechanism

NAMES = ("pi-01", "pi-02", "pi-03")
BANDED = (
    "privacy.masked=true", "privacy.helpers=north", "privacy.least=3", "privacy.helper_s=60", "rounds.expect=3",
    "rounds.min_reports=3", "rounds.rounds=40", "privacy.noise=banded", "privacy.band=2", "privacy.separation=2",
    "privacy.sigma=5", "privacy.share=1", "privacy.bits=24", "privacy.budget=1000",
)  # fmt: skip


class Process:
    """A helper of this fleet, in a process that ends with `stack` at the latest."""

    def __init__(self, fleet: KeyedFleet, stack: ExitStack) -> None:
        self._home, self._log = fleet.folder / "helper-north", fleet.folder / "helper.log"
        if not self._home.exists():
            self._home.mkdir()
            unpack(*enrolment.add(fleet.keys, ["north"], role="helper"), self._home)
            fleet.reload()
        sets = (f"state_dir={self._home / 'state'}", "mqtt.reconnect_cap_s=0.3", "least.devices=3")
        words = [word for each in sets for word in ("--set", each)]
        path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgefl_broker.helper", "--config", str(self._home / "helper.toml"), *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=path,
            )  # fmt: skip
        stack.callback(self._process.kill)

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self._process.wait(20.0)

    def store(self) -> HelperStore:
        return HelperStore(self._home / "state")


def test_i34_both_ledgers_agree_with_the_accountant_though_helper_and_aggregator_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dp_accounting")
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")
    with ExitStack() as stack, KeyedFleet(tmp_path) as fleet:
        fleet.enrol(*NAMES)
        helper = Process(fleet, stack)
        aggregator = fleet.aggregator(*BANDED)
        for name in NAMES:
            fleet.agent(name)
        fleet.wait(2)
        assert helper.end(signal.SIGKILL) == -signal.SIGKILL
        eventually(lambda: aggregator.host.machine.phase == "unmasking", 40.0)
        asked = aggregator.host.machine._unmasking.saved  # type: ignore[union-attr]
        aggregator.die()
        helper = Process(fleet, stack)
        aggregator = fleet.aggregator(*BANDED)
        before = len(fleet.records())
        records = fleet.wait(before + 2)
        opened = next(record for record in records if record.round == asked.record.round)
        assert (opened.state, opened.devices) == ("committed", sorted(asked.entries)), "the set that was on its disk"
        aggregator.host.post(Stop())
        aggregator.join(20.0)
        helper.end(signal.SIGTERM)
        records = [record for record in fleet.records() if record.state == "committed"]
        told = aggregator.host.machine.masked.spent
    store = helper.store()
    ledger, opened_round = store.state.ledger, store.state.round
    store.close()
    assert ledger is not None and ledger.first == records[0].round == 1
    noise = Mechanism.of(asked.terms.noise, asked.terms.norm2)
    times = (ledger.round - 1) // noise.separation + 1
    assert times >= 4
    exact = accountant.epsilon(noise.rho(ledger.round, times), ledger.delta)
    assert ledger.epsilon == pytest.approx(exact) and opened_round == ledger.round
    by_round = {record.round: record.epsilon for record in records}
    assert by_round.get(ledger.round, exact) == pytest.approx(exact)
    assert told.epsilon >= exact * (1 - 1e-9), "an aggregator pays before it asks"
