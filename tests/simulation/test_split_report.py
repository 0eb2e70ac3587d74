"""`edgefl partition`: what it says about a split is so, it is the split of a simulation, and it can be drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgefl
from edgefl.cli.main import main
from edgefl.data import Dataset, load
from edgefl.errors import UsageError
from edgefl.simulation import stage as simulation
from edgefl.simulation.split.picture import draw
from edgefl.simulation.split.report import report
from edgefl.simulation.split.shifts import spread


def split_of(capsys, *arguments) -> dict:
    assert main(["partition", "--data", "digits", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_counts_and_distances_by_hand():
    x = np.array([[0.0], [0.0], [2.0], [2.0], [0.0], [2.0]])
    data = Dataset(x, [0, 0, 1, 1, 0, 1], labels=("ok", "worn"))
    found = report(data, [np.array([0, 1]), np.array([2, 3, 4]), np.array([5])], partition="by hand", seed=0)
    assert found.labels == ["ok", "worn"] and found.counts == [[2, 0], [1, 2], [0, 1]] and found.sizes == [2, 3, 1]
    assert (found.examples, found.unused) == (6, 0)
    assert found.size.least == 1 and found.size.most == 3 and found.tenth == 0.5
    assert found.label_distance.most == 0.5 and found.label_distance.least == pytest.approx(1 / 6)
    # The whole has mean 1 and deviation 1; the first device mean 0 and none: sqrt(1 + 1).
    assert found.feature_distance.most == pytest.approx(2**0.5)
    middle = np.hypot(4 / 3 - 1, np.std([2, 2, 0]) - 1)
    assert found.feature_distance.least == pytest.approx(middle)


def test_targets_and_examples_that_have_no_labels_or_no_scale():
    numbers = Dataset(np.ones((6, 2)), np.arange(6) / 2)
    found = report(numbers, [np.arange(3), np.arange(3, 5)], partition="natural", seed=0)
    assert found.counts == [] and found.labels_each is None and found.label_distance is None
    assert found.feature_distance is None and found.unused == 1
    tokens = Dataset(np.ones((4, 3), np.int64), np.array([[0, 1, 1], [0, 1, 1], [2, 2, 2], [2, 2, 2]]))
    found = report(tokens, [np.arange(2), np.arange(2, 4)], partition="iid", seed=0)
    assert found.counts == [[2, 4, 0], [0, 0, 6]] and found.label_distance.median == 0.5


def test_skew_is_beyond_chance_and_iid_is_not(capsys):
    even, skewed, noisy = (
        split_of(capsys, "--devices", "20", "--partition", spec) for spec in ("iid", "labels:2", "iid+noise:1")
    )
    assert even["label_distance"]["median"] < 1.2 * even["label_distance_by_chance"]["median"]
    assert skewed["label_distance"]["median"] > 4 * skewed["label_distance_by_chance"]["median"]
    assert even["feature_distance"]["most"] < 0.3 < noisy["feature_distance"]["most"]
    assert noisy["counts"] == even["counts"]


def test_it_is_the_split_of_a_simulation(capsys, monkeypatch):
    seen = {}

    def spy(*arguments):
        seen["parts"] = spread(*arguments)[1]
        return spread(*arguments)

    monkeypatch.setattr(simulation, "spread", spy)
    edgefl.simulate("mlp:64-10", "digits", devices=12, rounds=1, partition="dirichlet:0.2", seed=7, workers=1)
    found = split_of(capsys, "--devices", "12", "--partition", "dirichlet:0.2", "--seed", "7")
    assert found["sizes"] == [len(part) for part in seen["parts"]]
    labels = load("digits", seed=7).y_train
    assert found["counts"] == [np.bincount(labels[part], minlength=10).tolist() for part in seen["parts"]]


def test_the_table_and_its_bounds(capsys):
    main(["partition", "--data", "digits", "--devices", "30", "--rows", "2", "--partition", "labels:1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("dev-00 ") and lines[2].startswith("dev-01 ") and lines[1].count(" .") == 9
    assert lines[3] == "... and 28 more: --rows 30 shows them all"
    assert "labels a device: 1 to 1" in lines[6]
    main(["partition", "--data", "digits", "--devices", "30", "--rows", "0"])
    assert capsys.readouterr().out.startswith("30 devices, 1438 examples; partition iid, seed 0\n")


@pytest.mark.parametrize(
    ("spec", "ending"), [("iid", "png"), ("labels:2", "svg"), ("pathological", "pdf"), ("dirichlet:0.3", "png")]
)
def test_pictures(tmp_path, spec, ending):
    devices = 10 if spec == "iid" else 80
    data, parts = spread(load("digits"), spec, devices, 0)
    path = tmp_path / f"split.{ending}"
    draw(report(data, parts, partition=spec, seed=0), path)
    assert path.read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF") and path.stat().st_size > 5000
    numbers = Dataset(data.x_train, data.x_train[:, 0] * 0.5)
    draw(report(numbers, parts, partition=spec, seed=0), path)


def test_a_picture_that_cannot_be_written(tmp_path):
    data, parts = spread(load("digits"), "iid", 4, 0)
    for path in (tmp_path / "nowhere" / "a.png", tmp_path / "a.docx"):
        with pytest.raises(UsageError, match="can't write the picture"):
            draw(report(data, parts, partition="iid", seed=0), path)
    assert main(["partition", "--data", "digits", "--devices", "4", "--partition", "dirichlet"]) == 2


def test_devices_that_share_examples(capsys):
    assert split_of(capsys, "--devices", "3000", "--partition", "windows:20")["sizes"] == [20] * 3000
    assert main(["partition", "--data", "digits", "--devices", "50000", "--partition", "windows:600"]) == 2
    assert "have 30,000,000 examples in all: look at fewer devices" in capsys.readouterr().err
