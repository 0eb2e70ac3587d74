"""Versions that an aggregator keeps: tags, the best one, and what commands read of them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgefl_broker.models import KEPT_MODELS
from edgefl_broker.outputs import ModelFiles
from edgefl_broker.store import AggregatorStore
from edgefl_broker.tags import TagTable

import edgefl
from edgefl.cli.main import main
from edgefl.core.protobuf import metadata_of, without_stamp
from edgefl.history_record import RoundRecord
from edgefl.hosting.versions import MOST_TAGS
from edgefl.onnx import zoo

MODEL = edgefl.load(zoo.mlp([4, 8, 3], seed=1))


def commit(store: AggregatorStore, version: int, state="committed", **scores) -> RoundRecord:
    params = MODEL.params + np.float32(version)
    record = RoundRecord(version, state, version, 1, [], 1, None, 0, 0, 0.0, **scores)
    store.commit(record, params if state == "committed" else None)
    return record


def opened(folder: Path, *, tested=True, models=KEPT_MODELS) -> tuple[AggregatorStore, TagTable]:
    store = AggregatorStore(folder, models)
    store.resume(MODEL.plan.hash, MODEL.params)
    return store, TagTable(store, tested=tested, most_bytes=1e6)


def test_tagged_versions_and_the_best_one_stay(tmp_path):
    store, tags = opened(tmp_path)
    with closing(store):
        for version, accuracy in enumerate((0.5, 0.9, 0.7, 0.9, 0.8, 0.6, 0.6), 1):
            moved = tags.learn(commit(store, version, accuracy=accuracy, loss=1.0))
            assert moved == (version <= 2)  # an equal score is no better one
            if version == 1:
                assert tags.name("first", 1) == (True, "version 1 is first")
        assert store.models.versions() == [1, 2, 5, 6, 7]
        assert tags.name("gone", 3)[0] is False and tags.best.accuracy == 0.9
        assert tags.remove("first") == (True, "version 1 is no longer first")
        assert tags.remove("first")[0] is False
        commit(store, 8)
        assert store.models.versions() == [2, 6, 7, 8]
    store, tags = opened(tmp_path)
    with closing(store):
        assert tags.best.version == 2 and store.models.pinned == {2}


def test_a_commit_before_a_power_cut_is_the_best_after_it(tmp_path):
    store, _ = opened(tmp_path)
    commit(store, 1, accuracy=0.5)  # and the process dies
    store.close()
    store, tags = opened(tmp_path)
    with closing(store):
        assert tags.best.version == 1


def test_devices_judge_where_there_is_no_test_set(tmp_path):
    store, tags = opened(tmp_path, tested=False)
    with closing(store):
        commit(store, 1, accuracy=0.1, device_accuracy=0.9)
        assert tags.learn(commit(store, 2, device_accuracy=0.4, device_loss=2.0))
        assert tags.best.version == 1  # a round's devices have judged the model that it began with
        record = RoundRecord(3, "evaluated", 2, 1, [], 1, None, 0, 0, 0.0, device_accuracy=0.4, device_loss=1.0)
        assert tags.learn(record) and tags.best.version == 2
    store, tags = opened(tmp_path, tested=True)
    with closing(store):
        assert tags.best.judge == "test" and tags.best.version == 1  # scores of two kinds are not compared


def test_a_loss_alone_decides(tmp_path):
    store, tags = opened(tmp_path)
    with closing(store):
        assert [tags.learn(commit(store, v, loss=loss)) for v, loss in ((1, 3.0), (2, 2.0), (3, 2.5))] == [1, 1, 0]


def test_tags_are_bounded_in_number_and_bytes(tmp_path):
    store, tags = opened(tmp_path)
    with closing(store):
        commit(store, 1)
        for number in range(MOST_TAGS):
            assert tags.name(f"tag{number}", 1)[0]
        assert "32 tags exist" in tags.name("more", 1)[1]
        commit(store, 2)
        small = TagTable(store, tested=True, most_bytes=4 * MODEL.params.size)
        assert "raise models_mb" in small.name("tag0", 2)[1]


def test_damaged_tags_are_left_out(tmp_path):
    store, tags = opened(tmp_path)
    commit(store, 1)
    tags.name("mine", 1)
    store._db.execute("UPDATE meta SET value = replace(value, 'mine', 'mene') WHERE key = 'tags'")
    store.close()
    store, tags = opened(tmp_path)
    with closing(store):
        assert tags.tags == {}


@pytest.mark.parametrize("running", [True, False])
def test_commands_read_the_folder_whether_an_aggregator_runs_or_not(tmp_path, capsys, running):
    store, tags = opened(tmp_path)
    ModelFiles(tmp_path, MODEL, "digits", store.keep("run", "")).begin()
    store.write("federation", "digits")
    for version in (1, 2, 3):
        tags.learn(commit(store, version, accuracy=version / 4, loss=1.0, closed_at=1_800_000_000))
    tags.name("mine", 2)
    if not running:
        store.close()
    where = ["--state-dir", str(tmp_path)]
    assert main(["versions", *where]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 5 and table[3].endswith("mine") and table[4].endswith("best") and "0.7500" in table[4]
    assert main(["versions", "--json", *where]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["version"], row.get("tags", [])) for row in rows] == [(0, []), (1, []), (2, ["mine"]), (3, ["best"])]
    for which, version in (("2", 2), ("mine", 2), ("best", 3)):
        file = tmp_path / f"{which}.onnx"
        assert main(["download", which, str(file), *where]) == 0
        data = file.read_bytes()
        assert without_stamp(data) == MODEL.to_bytes(MODEL.params + np.float32(version))
        found = metadata_of(data)
        assert found.items() >= {"federation": "digits", "version": str(version), "round": str(version)}.items()
        assert found["accuracy"] == str(version / 4)
        onnx.checker.check_model(data)
    assert main(["download", "nine", str(tmp_path / "x"), *where]) == 2
    assert "tags are best, mine" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    if running:
        store.close()


def test_mistakes_are_named(tmp_path, capsys):
    for words in (
        ["versions", "--state-dir", str(tmp_path)],
        ["versions", "--state-dir", str(tmp_path / "none")],
        ["rollback", "--to", "mine", "--state-dir", str(tmp_path)],
        ["tag", "1", "best"], ["tag", "1", "2"], ["tag", "1"], ["tag"], ["tag", "1", "a", "--remove", "a"],
    ):  # fmt: skip
        assert main(words) == 2, words
    told = capsys.readouterr().err
    assert "no aggregator.db in" in told and "space left" not in told
