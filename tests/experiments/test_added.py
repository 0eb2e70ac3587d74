"""`edgefl compare --add`: a run from elsewhere stands in the table and in the figures."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import edgefl
from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.experiments.added import Added, read_run
from edgefl.experiments.comparison import Comparison
from edgefl.experiments.experiment import Experiment
from edgefl.experiments.grid import Cell, Grid
from edgefl.experiments.results import Curve, Result

EXPERIMENT = """
model = "mlp:64-10"
data = "digits"
fleet = { devices = 6 }
rounds = { rounds = 3 }
evaluate = { holdout = 0.0 }
[compare]
strategies = ["fedavg", "fedavgm"]
codecs = ["ecq", "raw32"]
partitions = ["iid", "shards:2"]
seeds = 2
last = 1
"""
FOREIGN = """round, accuracy, bytes_up, bytes_down
1, 0.25, 1000000, 500000
2, , 1000000, 500000
4, 0.75, 1000000, 500000
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with its runs."""
    pytest.importorskip("sklearn")
    path = tmp_path_factory.mktemp("compare")
    (path / "experiment.toml").write_text(EXPERIMENT)
    (path / "foreign.csv").write_text(FOREIGN)
    assert main(["compare", str(path / "experiment.toml"), "--out", str(path), "--no-figures", "--jobs", "2"]) == 0
    return path


def simulated(path: Path, **options) -> edgefl.History:
    """A run of `edgefl simulate`, as its folder has it."""
    words = [
        "simulate",
        "--model",
        "mlp:64-10",
        "--data",
        "digits",
        "--devices",
        "6",
        "--rounds",
        "3",
        "--codec",
        "ecq",
    ]
    words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main([*words, "--out", str(path), "--json", str(path.with_suffix(".json"))]) == 0
    return path


def rows(folder: Path, capsys, *words: str) -> dict[tuple[str, str], dict]:
    """Of --json, by variant and partition; of several codecs the last."""
    capsys.readouterr()
    assert (
        main(["compare", str(folder / "experiment.toml"), "--out", str(folder), "--no-figures", "--json", *words]) == 0
    )
    return {(row["variant"], row["partition"]): row for row in json.loads(capsys.readouterr().out)}


@pytest.fixture(autouse=True)
def none_from_before(folder):
    for file in folder.glob("added/*"):
        file.unlink()


def test_a_csv_of_another_system_is_a_row_with_its_costs(folder, capsys):
    assert main(["compare", "--add", str(folder / "foreign.csv"), "--as", "other system", "--out", str(folder)]) == 0
    assert capsys.readouterr().out == f"added: other system, 3 rounds of {folder / 'foreign.csv'}\n"
    found = rows(folder, capsys)
    row = found["other system", "iid"]
    assert row["accuracy"] == [0.75, None, 1] and row["rounds"][0] == 4 and row["megabytes"][0] == 4.5
    assert row["hours"] == [None, None, 0] and row["difference"] == [None, None, 0]
    assert ("other system", "shards:2") not in found
    lines = (folder / "table.md").read_text().splitlines()
    (line, *_) = [line for line in lines if line.startswith("| other system")]
    assert "75.00" in line and "4.50" in line
    with open(folder / "runs.csv", newline="") as file:
        (run,) = [run for run in csv.DictReader(file) if run["variant"] == "other system"]
    assert run["seed"] == "" and float(run["accuracy"]) == 0.75


def test_a_folder_of_simulate_knows_its_partition_and_its_seed(folder, tmp_path, capsys):
    run = simulated(tmp_path / "run", seed=1, partition="shards:2", strategy="fedavg")
    found = rows(folder, capsys, "--add", str(run), "--as", "mine")
    row = found["mine", "shards:2"]
    with open(folder / "runs.csv", newline="") as file:
        runs = {(r["variant"], r["codec"], r["partition"], r["seed"]): r for r in csv.DictReader(file)}
    mine, first = runs["mine", "", "shards:2", "1"], runs["fedavg", "ecq", "shards:2", "1"]
    # The same settings and seed: the same run, and so is what was counted of it
    assert {key: mine[key] for key in ("accuracy", "rounds", "megabytes")} == {
        key: first[key] for key in ("accuracy", "rounds", "megabytes")
    }
    assert row["difference"][::2] == [0.0, 1]  # paired with seed 1 alone


@pytest.mark.parametrize("what", ["run.json", "run/history.jsonl", "run"])
def test_a_history_is_read_in_every_form_that_simulate_writes(what, tmp_path):
    simulated(tmp_path / "run", seed=1, partition="shards:2")
    (tmp_path / "run.json").write_text((tmp_path / "run.json").read_text())
    added = read_run(tmp_path / what, "mine")
    assert (added.partition, added.faults, added.seed) == ("shards:2", "", 1)
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert added.curve.accuracy == [record["accuracy"] for record in records]
    sums = np.cumsum([record["bytes_up"] + record["bytes_down"] for record in records]) / 1e6
    assert added.curve.megabytes == pytest.approx(sums)
    sha256 = json.loads((tmp_path / "run.json").read_text())["final"]["model_sha256"]
    assert added.model_sha256 in ("", sha256) and (what != "run.json" or added.model_sha256 == sha256)


def test_an_aggregator_s_folder_is_paired_with_nothing(tmp_path):
    """Its run has no fleet that was simulated; its history may be in several parts."""
    whole = simulated(tmp_path / "run", seed=1)
    lines = (whole / "history.jsonl").read_text().splitlines(keepends=True)
    (whole / "history.1.jsonl").write_text("".join(lines[:2]))
    (whole / "history.jsonl").write_text("".join(lines[2:]))
    record = json.loads((whole / "run.json").read_text())
    del record["fleet"]
    record["settings"]["of a later version"] = {"key": 1}
    (whole / "run.json").write_text(json.dumps(record))
    added = read_run(whole, "field")
    assert added.curve.rounds == [1, 2, 3]
    assert (added.partition, added.faults, added.seed) == (None, None, None)


def test_runs_of_one_name_and_other_seeds_are_one_row_and_the_same_is_renewed(folder, capsys):
    words = ["compare", "--add", str(folder / "foreign.csv"), "--as", "other", "--out", str(folder)]
    for seed in ("0", "1"):
        assert main([*words, "--seed", seed, "--partition", "shards:2"]) == 0
    capsys.readouterr()
    (folder / "foreign.csv").write_text(FOREIGN.replace("0.75", "0.5"))
    assert main([*words, "--seed", "1", "--partition", "shards:2"]) == 0
    (folder / "foreign.csv").write_text(FOREIGN)
    assert capsys.readouterr().out.startswith("renewed: other")
    row = rows(folder, capsys)["other", "shards:2"]
    assert row["accuracy"][::2] == [0.625, 2] and row["difference"][2] == 2


def test_what_stands_with_no_row_is_said_and_not_shown(folder, capsys):
    add = ["--add", str(folder / "foreign.csv"), "--as", "other", "--partition", "dirichlet:0.1"]
    found = rows(folder, capsys, *add)
    assert not [variant for variant, _ in found if variant == "other"]
    text = (folder / "table.md").read_text()
    assert "## Added, and not shown" in text and "no partition dirichlet:0.1; add" in text


def test_a_name_that_a_row_has_is_refused_before_anything_is_run(folder, capsys):
    words = ["compare", str(folder / "experiment.toml"), "--out", str(folder), "--set", "compare.seeds=3"]
    before = sorted((folder / "runs").iterdir())
    assert main([*words, "--add", str(folder / "foreign.csv"), "--as", "fedavgm"]) == 2
    assert "fedavgm is a row of the experiment" in capsys.readouterr().err
    assert sorted((folder / "runs").iterdir()) == before
    assert rows(folder, capsys)  # it was not taken into the folder


def test_a_name_that_a_later_row_has_can_be_taken_out(folder, capsys):
    assert main(["compare", "--add", str(folder / "foreign.csv"), "--as", "fedavgm", "--out", str(folder)]) == 0
    capsys.readouterr()
    assert main(["compare", str(folder / "experiment.toml"), "--out", str(folder), "--no-figures"]) == 2
    told = re.search(r"remove (added/\S+\.json)", capsys.readouterr().err)
    assert told
    (folder / told[1]).unlink()
    assert rows(folder, capsys)


def test_what_is_compared_is_what_the_experiment_has():
    """A foreign run has an accuracy on some test set, where the experiment has what devices hold out."""
    ours = {Cell("fedavg", "raw32", "iid", ""): {0: Result(None, None, Curve([1], held_loss=[0.5]), "", 0.0)}}
    theirs = {Cell("other", "", "iid", ""): {0: Added("other", Curve([1], accuracy=[0.9]), "other.csv")}}
    for results in (ours | theirs, theirs | ours):
        assert Comparison(Grid(Experiment(model="mlp:4-2", data="digits")), {}, results, {}).quality == "held_loss"
    assert Comparison(Grid(Experiment(model="mlp:4-2", data="digits")), {}, theirs, {}).quality == "accuracy"


def test_it_is_drawn(folder):
    pytest.importorskip("matplotlib")
    words = ["--add", str(folder / "foreign.csv"), "--as", "other"]
    assert main(["compare", str(folder / "experiment.toml"), "--out", str(folder), *words]) == 0
    assert {path.name for path in folder.glob("*.png")} >= {"against-rounds.png", "against-megabytes.png"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("round,accuracy\n", "has no line of numbers"),
        ("round,acuracy\n1,0.5\n", "did you mean 'accuracy'"),
        ("round,accuracy,accuracy \n1,0.5,0.6\n", "two columns 'accuracy'"),
        ("round,bytes_up\n1,5\n", "accuracy or loss are needed"),
        ("accuracy\n0.5\n", "round, and accuracy"),
        ("round,accuracy\n1,high\n", "line 2: accuracy is 'high'"),
        ("round,accuracy\n1,50\n", "from 0 to 1"),
        ("round,accuracy\n1,nan\n", "accuracy is 'nan'"),
        ("round,accuracy,bytes_up\n1,0.5,-3\n", "bytes_up is '-3'"),
        ("round,accuracy,bytes_up\n1,0.5,inf\n", "bytes_up is 'inf'"),
        ("round,accuracy\n1,0.5,7\n", "more numbers than"),
        ("round,accuracy\n2,0.5\n1,0.5\n", "rounds must rise"),
        ("round,accuracy\n,0.5\n", "rounds must rise"),
    ],
)
def test_a_csv_that_says_something_else_is_refused(text, said, tmp_path):
    (tmp_path / "run.csv").write_text(text)
    with pytest.raises(UsageError, match=r"run\.csv") as caught:
        read_run(tmp_path / "run.csv", "other")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "missing.jsonl", "missing.json", "wrong.json", "empty"])
def test_what_is_no_run_is_refused(name, tmp_path):
    (tmp_path / "wrong.json").write_text('{"rounds": 3}')
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="name a folder of edgefl simulate"):
        read_run(tmp_path / name, "other")


@pytest.mark.parametrize("name", ["", " x", "a|b", "two\nlines", "x" * 65])
def test_a_name_is_one_cell_of_a_table(name, tmp_path):
    with pytest.raises(UsageError, match="can't be called"):
        read_run(tmp_path, name)


@pytest.mark.parametrize("words", [["--add", "x.csv"], ["--as", "x"], ["--seed", "1"]])
def test_options_of_a_run_that_is_not_named_are_refused(words, tmp_path):
    assert main(["compare", "--out", str(tmp_path), *words]) == 2
