"""What devices have of their own, on real brokers: across kill -9 it goes on bit for bit; with keys it is signed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually
from daemons import blobs
from keyed_fleet import KeyedFleet

from edgefl.core.protobuf import metadata_of
from edgefl.data import Dataset
from edgefl.history_record import RoundRecord
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet

ROUNDS, DEVICES = 7, ("dev-1", "dev-2", "dev-3")
# Each round is of the whole cohort, and its deadline is far: so both runs have the same updates in each round.
SETTINGS = {
    "rounds": {"rounds": ROUNDS, "deadline_s": 300.0, "min_reports": 3, "goal": 3, "expect": 3},
    "train": {"epochs": 500, "lr": 0.002},
    "codec": {"name": "raw32"},
    "downlink": {"name": "raw32"},  # a lossy one begins again with a keyframe after a restart
    "evaluate": {"holdout": 0.3},
}


def run(folder: Path, url: str, strategy: str, kills: dict[int, list[str]]) -> list[RoundRecord]:
    """Three devices, each a process. After each of the rounds in `kills` these die, and are started again."""
    x, y = blobs(90, seed=3)
    model = zoo.mlp([4, 8, 3], seed=1).SerializeToString()
    parts = [np.flatnonzero(y == label) for label in range(3)]  # each device sees one class
    fleet = ProcessFleet(
        folder, url, model, Dataset(x, y), parts, settings={**SETTINGS, "strategy": {"name": strategy}}
    )  # fmt: skip
    with open(folder / "dev-1" / "agent.toml", "a") as file:
        file.write(f'\n[model]\nfile = "{folder}/model.onnx"\npersonal_file = "{folder}/personal.onnx"\n')
    with fleet:
        for round, names in kills.items():
            eventually(lambda round=round: len(fleet.records()) >= round, 60.0)
            for name in names:
                fleet.kill(name)
            assert len(fleet.records()) < ROUNDS, "they died when all was done: the test shows nothing"
            for name in names:
                fleet.start(name)
        fleet.wait(lambda record: None, 120.0)
        return fleet.records()


def kept(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What each device has of its own from its newest update, and the round of that."""
    found = {}
    for device in DEVICES:
        with sqlite3.connect(folder / device / "agent.db") as database:
            query = "SELECT round, blob FROM slot WHERE name = 'personal' ORDER BY new DESC, round DESC LIMIT 1"
            found[device] = database.execute(query).fetchone()
        database.close()
    return found


@pytest.mark.parametrize("strategy", ["ditto", "fedper"])
def test_i08_i11_what_is_personal_goes_on_bit_for_bit_after_kill_9(strategy: str, tmp_path: Path, embedded) -> None:
    url = embedded.url
    kills = {1: ["dev-1"], 2: [AGGREGATOR], 4: ["dev-2", AGGREGATOR], 5: ["dev-1", "dev-3"]}
    whole = run(tmp_path / "whole", url, strategy, {})
    killed = run(tmp_path / "killed", url, strategy, kills)
    for records in (whole, killed):
        assert [(record.state, record.devices) for record in records] == [("committed", list(DEVICES))] * ROUNDS
    models = [(tmp_path / name / "state" / "model.onnx").read_bytes() for name in ("whole", "killed")]
    shas = [metadata_of(model)["params_sha256"] for model in models]
    assert shas[0] == shas[1]
    own = kept(tmp_path / "whole")
    assert {round for round, _ in own.values()} == {ROUNDS}
    assert len({blob for _, blob in own.values()}) == 3  # each device has its own
    assert own == kept(tmp_path / "killed")
    # the scores of what they keep are the same too
    assert [record.personal_loss for record in whole] == [record.personal_loss for record in killed]
    assert whole[-1].personal == 3
    assert whole[-1].personal_accuracy >= whole[-1].device_accuracy
    files = [metadata_of((tmp_path / name / "personal.onnx").read_bytes()) for name in ("whole", "killed")]
    assert files[0]["kept"] == "own"
    assert {name: files[0][name] for name in ("round", "params_sha256", "loss")} == {
        name: files[1][name] for name in ("round", "params_sha256", "loss")
    }


def test_with_keys_devices_keep_a_layer_and_sign_what_they_say_of_it(tmp_path: Path) -> None:
    """Default codecs, mosquitto with the guard, signed updates, and bounded influence."""
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol("pi-01", "pi-02", "pi-03")
        fleet.aggregator("rounds.rounds=4", "rounds.min_reports=3", "strategy.name=fedper", "evaluate.holdout=0.3")
        files = [f"model.file={tmp_path}/m.onnx", f"model.personal_file={tmp_path}/own.onnx"]
        for name in ("pi-01", "pi-02", "pi-03"):
            fleet.agent(name, *(files if name == "pi-01" else ()))
        records = fleet.wait(4)
    assert [record.state for record in records] == ["committed"] * 4
    assert [record.personal for record in records] == [3] * 4
    assert records[0].own == 0  # none had anything yet
    assert records[-1].own == 3
    assert records[-1].personal_loss < records[0].personal_loss
    assert all(record.accuracy is None and not record.refused for record in records)
    own, shared = ((tmp_path / name).read_bytes() for name in ("own.onnx", "m.onnx"))
    assert metadata_of(own)["kept"] == "own"
    heads = [load(blob).params[-27:] for blob in (own, shared)]
    start = load(zoo.mlp([4, 8, 3], seed=1)).params[-27:]
    np.testing.assert_allclose(heads[1], start, atol=0.01)  # what devices keep stays as it was in the model
    assert np.abs(heads[0] - start).max() > 0.02
