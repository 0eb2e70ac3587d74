"""A profile with noise over a real broker: keys, agents, a helper, and an aggregator that is killed in its round."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually
from daemons import Running
from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.daemon import HelperDaemon
from edgefl_broker.helper.store import HelperStore
from edgefl_broker.store import AggregatorStore
from enrolled import unpack
from keyed_fleet import KeyedFleet

from edgefl.cli.main import main
from edgefl.keys import enrolment
from edgefl.machine import Stop
from edgefl.privacy import accountant
from edgefl.privacy.ledger import Ledger
from edgefl.settings import files

NAMES = ("dev-a", "dev-b", "dev-c", "dev-d")
UNITS = np.array([1e-3, 1.0, 1e3, 1e6])
SIGMA, SIGMAS = 0.005, 6.0  # of the noise, so that little is lost in it; and how many of them are never exceeded
ROUNDS = 3  # the profile, and two that train
SETTINGS = (
    "privacy.masked=true", "privacy.helpers=north", "privacy.least=4", "privacy.share=1", "privacy.bits=24",
    "privacy.helper_s=120", "privacy.noise=independent", f"privacy.sigma={SIGMA}", "features.standardize=federated",
    "features.min_devices=2", "features.ranges=0:0.01, 0:10, 0:10000, 0:10000000", "rounds.expect=4",
    "rounds.min_reports=4", f"rounds.rounds={ROUNDS}", "rounds.deadline_s=120",
)  # fmt: skip


def table(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns about a middle of their own on each device, well within the ranges."""
    rng = np.random.default_rng(seed)
    x = (5 + rng.uniform(-1, 1, 4) + rng.normal(size=(60, 4))) * UNITS
    return x.astype(np.float32), rng.integers(0, 3, 60)


def enrol(fleet: KeyedFleet) -> None:
    for seed, name in enumerate(NAMES):
        x, y = table(seed)
        np.savez(fleet.folder / f"{name}.npz", x=x, y=y)
    source, model = f"npz:{fleet.folder}/{{name}}.npz", f"{fleet.folder}/start.onnx"
    terms = ["--data", source, "--model", model, "--loss", "cross_entropy", "--standardize"]
    assert main(["keys", "add", str(fleet.keys), *NAMES, *terms]) == 0
    for name in NAMES:
        unpack(fleet.keys / "devices" / f"{name}.tar", fleet.home(name))


def helper_of(fleet: KeyedFleet) -> tuple[Running, Path]:
    home = fleet.folder / "helper-north"
    usual = [f"state_dir={home / 'state'}", "mqtt.reconnect_cap_s=0.3", "least.devices=4", f"least.noise={SIGMA / 2}"]
    return fleet._keep(Running(HelperDaemon(files.load(home / "helper.toml", HelperConfig, usual)))), home / "state"


def killed_twice(fleet: KeyedFleet) -> tuple[Running, Running, Path]:
    """The aggregator that goes on after two that were killed: while the owners of two devices wanted five in a sum, and
    while the helper was not there to open it. It, the helper, and where that keeps what it has opened."""
    helper, state = helper_of(fleet)  # which says before the first round what it knows
    first = fleet.aggregator(*SETTINGS)
    for name in NAMES[:2]:
        fleet.agent(name, "policy.masked=true", "policy.least_devices=4")
    strict = [fleet.agent(name, "policy.masked=true", "policy.least_devices=5") for name in NAMES[2:]]
    eventually(lambda: first.host.machine.tally is not None and first.host.machine.tally.num_counted == 2, 60.0)
    first.die()
    for agent in strict:
        agent.stop()
    second = fleet.aggregator(*SETTINGS)
    eventually(lambda: second.host.machine._inquired == 1, 60.0)
    helper.stop()
    for name in NAMES[2:]:
        fleet.agent(name, "policy.masked=true", "policy.least_devices=4")
    eventually(lambda: second.host.machine.phase == "unmasking", 60.0)
    second.die()
    assert fleet.records() == []
    helper, state = helper_of(fleet)
    return fleet.aggregator(*SETTINGS), helper, state


def test_i38_a_profile_with_noise_is_near_the_truth_and_in_both_ledgers_though_the_aggregator_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dp_accounting")
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")
    with KeyedFleet(tmp_path) as fleet:
        enrol(fleet)
        (fleet.folder / "helper-north").mkdir()
        unpack(*enrolment.add(fleet.keys, ["north"], role="helper"), fleet.folder / "helper-north")
        fleet.reload()
        aggregator, helper, state = killed_twice(fleet)
        assert aggregator.join(120.0) and aggregator.error is None, "all rounds are done"
        helper.host.post(Stop())
        assert helper.join(20.0)
        records = fleet.records()
        capsys.readouterr()
        assert main(["profile", "--state-dir", str(fleet.folder / "state"), "--last", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    agrees(told)
    profile, *trained = records
    assert (profile.round, profile.state, profile.version, profile.profile) == (1, "committed", 1, True)
    assert profile.devices == list(NAMES) and [record.profile for record in trained] == [False] * (ROUNDS - 1)
    spent = [accountant.epsilon(n / (2 * SIGMA**2), 1e-5) for n in range(1, ROUNDS + 1)]
    assert [record.epsilon for record in records] == pytest.approx(spent, rel=1e-6), "a restart has cost nothing"
    ours, theirs = ledgers(fleet, aggregator, state)
    assert ours.epsilon == theirs.epsilon == records[-1].epsilon
    assert (ours.round, theirs.round) == (ROUNDS, ROUNDS)


def ledgers(fleet: KeyedFleet, aggregator: Running, state: Path) -> tuple[Ledger, Ledger]:
    """What aggregator and helper have on their disks."""
    known = aggregator.host.machine.masked.ledger
    store, opened = AggregatorStore(fleet.folder / "state"), HelperStore(state)
    ours, theirs = store.ledger(known.root, known.delta), opened.state.ledger
    store.close()
    opened.close()
    assert theirs is not None
    return ours, theirs


def agrees(told: dict) -> None:
    """Means and deviations are those of the devices' data, within the noise that the profile names."""
    assert told["masked"] and told["devices"] == len(NAMES) and 0 < told["noise"] < 1
    assert [column["column"] for column in told["columns"]] == [0, 1, 2, 3]
    for column in told["columns"]:
        half = 5 * UNITS[column["column"]]
        u = np.array([table(seed)[0][:, column["column"]] for seed in range(len(NAMES))]) / half - 1.0
        mean, square = u.mean(), (u**2).mean()  # each device has as many examples
        noise = SIGMAS * told["noise"] / len(NAMES)
        assert abs(column["mean"] / half - 1 - mean) < noise * math.sqrt(1 + mean**2)
        assert column["noise"] / half == pytest.approx(told["noise"] / len(NAMES), rel=0.5)
        off = noise * math.sqrt(1 + 4 * mean**2 + (square - 2 * mean**2) ** 2)
        variance = (column["deviation"] / half) ** 2
        assert abs(variance - (square - mean**2)) < off + 2 * told["noise"] / len(NAMES)
