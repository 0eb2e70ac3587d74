"""Masked rounds with real daemons: mosquitto with TLS and the guard, an aggregator, agents and a helper, with keys that
`edgefl keys` has made."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from brokers import eventually
from daemons import Running
from edgefl_agent.ledger import Reader
from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.daemon import HelperDaemon
from enrolled import roster, unpack
from keyed_fleet import KeyedFleet

from edgefl.errors import UsageError
from edgefl.keys import enrolment
from edgefl.machine import Stop
from edgefl.settings import files

NAMES = ("pi-01", "pi-02", "pi-03")
MASKED = (
    "privacy.masked=true", "privacy.helpers=north", "privacy.least=3", "privacy.helper_s=15", "rounds.expect=3",
    "rounds.min_reports=3",
)  # fmt: skip


@pytest.fixture(autouse=True)
def trusted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")


def helper_of(fleet: KeyedFleet, *sets: str) -> Running:
    home = fleet.folder / "helper-north"
    if not home.exists():
        home.mkdir()
        unpack(*enrolment.add(fleet.keys, ["north"], role="helper"), home)
        fleet.reload()
    usual = [f"state_dir={home / 'state'}", "mqtt.reconnect_cap_s=0.3", "least.devices=3"]
    return fleet._keep(Running(HelperDaemon(files.load(home / "helper.toml", HelperConfig, [*usual, *sets]))))


def test_i35_masked_rounds_over_mqtt_with_a_helper_that_restarts(tmp_path: Path) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol(*NAMES)
        helper = helper_of(fleet)
        aggregator = fleet.aggregator(*MASKED)
        for name in NAMES:
            fleet.agent(name, "policy.masked=true", 'policy.helpers=["north"]', "policy.least_devices=3")
        first = fleet.wait(2)
        assert all(record.state == "committed" for record in first), first
        assert all(record.devices == list(NAMES) and record.num_examples == 3 for record in first)
        assert all(record.train_loss is None and record.helpers_s > 0 for record in first)
        helper.host.post(Stop())
        helper.join(10.0)
        eventually(lambda: aggregator.host.machine.phase == "unmasking", 30.0)
        helper_of(fleet)
        more = fleet.wait(len(fleet.records()) + 2)
        assert more[-1].state == "committed" and more[-1].version > first[-1].version
        turned = len(fleet.records())
        (bundle,) = enrolment.next_helper_epoch(fleet.keys, ["helper-north"])
        unpack(bundle, fleet.folder / "helper-north")
        last = fleet.wait(turned + 4)[-1]
        assert last.state == "committed", "rounds go on under the helper's next keys"
    entries = [line.entry for line in Reader(fleet.home("pi-01") / "state").lines()]
    assert entries and all((entry.mode, entry.num_examples) == ("masked", 0) for entry in entries)


def test_i36_an_agent_whose_owner_wants_masks_sits_plain_rounds_out(tmp_path: Path) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol(*NAMES)
        aggregator = fleet.aggregator()
        fleet.agent("pi-03", "policy.masked=true")
        for name in NAMES[:2]:
            fleet.agent(name)
        records = fleet.wait(2)
        assert all("pi-03" not in record.devices for record in records)
        eventually(
            lambda: any("not masked" in row.reason for row in aggregator.host.machine.rows() if row.id == "pi-03"), 20.0
        )


def test_an_aggregator_without_the_helpers_certificate_does_not_start(tmp_path: Path) -> None:
    with KeyedFleet(tmp_path) as fleet, pytest.raises(UsageError, match=r"can't read .*helper-north\.json"):
        fleet.aggregator(*MASKED)


def test_rounds_with_noise_are_in_the_ledger_and_an_aggregator_that_restarts_spends_on(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    noisy = (*MASKED, "privacy.noise=independent", "privacy.sigma=5", "privacy.bits=24", "privacy.budget=1000")
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol(*NAMES)
        helper_of(fleet)
        first = fleet.aggregator(*noisy)
        for name in NAMES:
            fleet.agent(name)
        spent = [record.epsilon for record in fleet.wait(3)]
        assert 0 < spent[0] < spent[1] < spent[2]
        first.host.post(Stop())
        first.join(20.0)
        before = len(fleet.records())
        second = fleet.aggregator(*noisy)
        told = second.host.machine.masked.spent
        assert told.epsilon >= fleet.records()[-1].epsilon and told.budget == 1000
        after = fleet.wait(before + 2)
        epsilons = [record.epsilon for record in after if record.state == "committed"]
        assert all(less < more for less, more in pairwise(epsilons))
        eventually(lambda: second.host.machine.summary(second.host.now()).privacy.round >= after[-1].round, 10.0)


def test_check_looks_at_the_helpers_certificates(tmp_path: Path) -> None:
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol(*NAMES)
        words = ["--config", str(fleet.keys / "aggregator" / "aggregator.toml"), "--check"]
        sets = [f"model={fleet.folder}/start.onnx", f"state_dir={fleet.folder}/state", *MASKED]
        words += [word for each in sets for word in ("--set", each)]
        assert "helper-north.json" in checked(words)
        enrolment.add(fleet.keys, ["north"], role="helper")
        assert f"roster {roster(fleet.keys).serial} with 3 devices, helpers north" in checked(words)


def checked(words: list[str]) -> str:
    """What `--check` prints, by a process of its own, since it turns the log down."""
    program = [sys.executable, "-m", "edgefl_broker", *words]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(program, capture_output=True, text=True, timeout=60, env=path).stdout
