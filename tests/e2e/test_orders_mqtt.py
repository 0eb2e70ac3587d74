"""An operator's orders to a running aggregator, and a gate, over real brokers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually
from daemons import Federation, blobs
from edgefl_broker.store import AggregatorStore

from edgefl.cli.main import main
from edgefl.coordinator.devices.quarantine import Suspect
from edgefl.core.protobuf import metadata_of
from edgefl.errors import UsageError

NUMBERS = itertools.count(1)
ENDLESS = {"deadline_s": 10.0, "min_reports": 1, "interval_s": 0.3}


@pytest.fixture
def fleet(broker_url: str, tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, broker_url, f"orders-{os.getpid()}-{next(NUMBERS)}")
    yield made
    made.close()


def roll_back(version: int, tmp_path: Path) -> int:
    return main(["rollback", "--to", str(version), "--state-dir", str(tmp_path / "aggregator")])


def test_an_operator_goes_back_while_rounds_run(fleet: Federation, tmp_path: Path, capsys) -> None:
    aggregator = fleet.aggregator(rounds=ENDLESS, keep_models=1000)
    fleet.agent("dev-a")
    eventually(lambda: aggregator.host.machine.version >= 3)
    assert roll_back(2, tmp_path) == 0
    told = capsys.readouterr().out
    assert "has the model of version 2" in told
    version = int(told.split()[1])
    eventually(lambda: aggregator.host.machine.version > version)  # rounds go on from there
    aggregator.stop()
    store = AggregatorStore(tmp_path / "aggregator")
    (again, _), (before, _) = store.models.get(version), store.models.get(2)
    (record,) = [r for r in store.records() if r.state == "rollback"]
    store.close()
    assert again.tobytes() == before.tobytes()
    assert (record.version, record.restored, record.accuracy is not None) == (version, 2, True)


def test_an_operator_names_a_version_and_goes_back_to_it(fleet: Federation, tmp_path: Path, capsys) -> None:
    """Long after the aggregator would have dropped it; the best one is kept beside it."""
    where = ["--state-dir", str(tmp_path / "aggregator")]
    aggregator = fleet.aggregator(rounds=ENDLESS | {"interval_s": 0.15}, keep_models=12)
    fleet.agent("dev-a")
    eventually(lambda: aggregator.host.machine.version >= 1)
    newest = aggregator.host.machine.version
    assert main(["tag", str(newest), "mine", *where]) == 0
    eventually(lambda: aggregator.host.machine.version > newest + 14, 30.0)
    assert main(["rollback", "--to", "mine", *where]) == 0
    assert f"has the model of version {newest}" in capsys.readouterr().out
    assert main(["download", "mine", str(tmp_path / "mine.onnx"), *where]) == 0
    assert main(["tag", "--remove", "mine", *where]) == 0
    aggregator.stop()
    best = metadata_of((tmp_path / "aggregator" / "best.onnx").read_bytes())
    assert main(["download", "best", str(tmp_path / "best.onnx"), *where]) == 0
    assert metadata_of((tmp_path / "best.onnx").read_bytes()) == best
    store = AggregatorStore(tmp_path / "aggregator")
    records = store.records()
    store.close()
    assert float(best["accuracy"]) == max(record.accuracy for record in records if record.accuracy is not None)


def test_an_operator_releases_a_device(fleet: Federation, tmp_path: Path, capsys) -> None:
    """It was put into quarantine by an earlier process."""
    (tmp_path / "aggregator").mkdir()
    store = AggregatorStore(tmp_path / "aggregator")
    store.save_suspects({"dev-a": Suspect([1], "finite", 1, 2**40)})
    store.close()
    aggregator = fleet.aggregator(rounds=ENDLESS)
    fleet.agent("dev-a")
    eventually(lambda: "dev-a" in aggregator.host.machine.presence.statuses)
    assert "NaN or infinity" in aggregator.host.machine.snapshot().barred["dev-a"]
    assert aggregator.host.machine.version == 0
    release = ["release", "dev-a", "--state-dir", str(tmp_path / "aggregator")]
    assert main(release) == 0
    assert "dev-a is let in again" in capsys.readouterr().out
    eventually(lambda: aggregator.host.machine.version >= 1)
    assert main(release) == 1
    assert "neither in quarantine nor muted" in capsys.readouterr().err


def test_a_version_that_is_not_kept_is_refused_and_the_answer_names_those_that_are(
    fleet: Federation, tmp_path: Path, capsys
) -> None:
    aggregator = fleet.aggregator(rounds=ENDLESS)
    eventually(lambda: aggregator.host.machine.snapshot().held)
    assert roll_back(77, tmp_path) == 1
    assert "version 77 is not kept: the versions are 0" in capsys.readouterr().err


def test_an_order_waits_for_the_aggregators_start_and_is_carried_out_then(
    fleet: Federation, tmp_path: Path, capsys, monkeypatch
) -> None:
    rounds = {"rounds": 3, "deadline_s": 10.0, "min_reports": 1}
    first = fleet.aggregator(rounds=rounds)
    fleet.agent("dev-a")
    assert first.join(), "its rounds are done"
    monkeypatch.setattr("edgefl.cli.orders.WAIT_S", 0.1)
    monkeypatch.setattr("edgefl.hosting.orders.WAIT_S", 0.1)
    assert roll_back(1, tmp_path) == 0
    assert "the order waits in" in capsys.readouterr().out
    second = fleet.aggregator(rounds=rounds)  # it has nothing to do but that
    assert second.join() and second.error is None
    records = second.host.history.rounds
    assert [(r.round, r.state, r.restored) for r in records][3:] == [(4, "rollback", 1)]
    assert not list((tmp_path / "aggregator" / "orders").glob("*.order"))


def test_a_gate_without_a_test_set_is_a_mistake_in_the_file(fleet: Federation) -> None:
    with pytest.raises(UsageError, match="set evaluate"):
        fleet.aggregator(gate={"judge": "test"}, evaluate={})


def test_a_gate_refuses_what_a_device_would_spoil_and_rounds_go_on(fleet: Federation, tmp_path: Path) -> None:
    """One device's labels are wrong, from a certain moment on; the test set tells."""
    rounds = {"rounds": 8, "deadline_s": 10.0, "min_reports": 1}
    gate = {"judge": "test", "max_accuracy_drop": 0.05}
    good = fleet.aggregator(rounds={**rounds, "rounds": 5}, gate=gate)
    agent = fleet.agent("dev-a")
    assert good.join()
    agent.stop()
    before = good.host.machine.params.copy()
    with np.load(tmp_path / "dev-a" / "data.npz") as data:
        np.savez(tmp_path / "dev-a" / "data.npz", x=data["x"], y=(data["y"] + 1) % 3)
    fleet.agent("dev-b", source=f"npz:{tmp_path / 'dev-a' / 'data.npz'}")
    spoilt = fleet.aggregator(rounds=rounds, gate=gate, train={"epochs": 20, "lr": 0.3})
    assert spoilt.join()
    records = spoilt.host.history.rounds[5:]
    assert [r.state for r in records] == ["refused"] * 3
    assert all("accuracy" in r.why and r.accuracy < 0.9 for r in records)
    assert spoilt.host.machine.params.tobytes() == before.tobytes()


def test_canaries_judge_what_a_large_device_would_spoil(fleet: Federation, tmp_path: Path) -> None:
    """Three canaries with few examples, and one device whose many labels become wrong."""
    rounds = {"rounds": 4, "deadline_s": 20.0, "min_reports": 4, "expect": 4}
    gate = {"judge": "canaries", "canaries": "dev-a, dev-b, dev-c", "quorum": 2, "max_accuracy_drop": 0.05}
    options = {"gate": gate, "evaluate": {"holdout": 0.3, "test_data": f"npz:{tmp_path / 'test.npz'}"}}
    x, y = blobs(3000, seed=7)
    np.savez(tmp_path / "many.npz", x=x, y=y)
    good = fleet.aggregator(rounds=rounds, train={"epochs": 5, "lr": 0.1}, **options)
    for name in ("dev-a", "dev-b", "dev-c"):
        fleet.agent(name)
    large = fleet.agent("dev-d", source=f"npz:{tmp_path / 'many.npz'}")
    assert good.join(60.0)
    assert [r.state for r in good.host.history.rounds] == ["committed"] * 4
    large.stop()
    before = good.host.machine.params.copy()
    np.savez(tmp_path / "wrong.npz", x=x, y=(y + 1) % 3)
    fleet.agent("dev-e", source=f"npz:{tmp_path / 'wrong.npz'}")
    spoilt = fleet.aggregator(rounds=rounds | {"rounds": 6}, train={"epochs": 5, "lr": 0.1}, **options)
    assert spoilt.join(60.0)
    records = spoilt.host.history.rounds[4:]
    assert [r.state for r in records] == ["refused"] * 2 and all("canaries" in r.why for r in records)
    assert spoilt.host.machine.params.tobytes() == before.tobytes()
