"""`edgefl compare` and `edgefl tune`: one folder of small runs, which is added to, killed and gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_files import results

import edgefl
from edgefl.cli.main import main
from edgefl.core.params import params_sha256

EXPERIMENT = """
model = "mlp:64-16-10"
data = "digits"

[fleet]
devices = 12

[rounds]
rounds = 4

[evaluate]
holdout = 0.2

[compare]
strategies = ["fedavg"]
codecs = ["ecq / raw32"]
partitions = ["iid", "dirichlet:0.3"]
faults = ["", "dropout:0.4:5"]
seeds = 2
last = 2

[compare.variants.pulled]
strategy = "fedavg"
"train.prox_mu" = 1.0

[tune]
rounds = 2
[tune.grid]
lr = [0.0001, 0.1]
[tune.own.pulled]
server_lr = [0.5, 1.0]
"""
RUNS = 2 * 2 * 2 * 2  # variants, partitions, faults, seeds
TRIALS = (2 + 4) * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment, killed in its midst and then run to its end."""
    pytest.importorskip("sklearn")
    path = tmp_path_factory.mktemp("compare")
    (path / "experiment.toml").write_text(EXPERIMENT)
    words = [
        sys.executable,
        "-m",
        "edgefl",
        "compare",
        str(path / "experiment.toml"),
        "--out",
        str(path),
        "--jobs",
        "2",
    ]
    started = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(list((path / "runs").glob("*.json"))) < 3:
        assert started.poll() is None
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    (path / "after-kill").write_text("\n".join(sorted(file.name for file in (path / "runs").glob("*.json"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgefl.cli.compare.say", lambda text: None)
        assert main(words[3:]) == 0
    return path


def test_what_a_kill_has_left_is_whole_and_is_not_run_again(folder):
    finished = (folder / "after-kill").read_text().splitlines()
    assert 3 <= len(finished) < RUNS + TRIALS
    assert len(results(folder)) == RUNS + TRIALS
    assert not list((folder / "runs").glob(".*"))
    killed_at = (folder / "after-kill").stat().st_mtime
    assert all((folder / "runs" / name).stat().st_mtime <= killed_at for name in finished)


def test_a_run_is_the_simulation_of_its_settings(folder):
    name, result = next(
        (n, r) for n, r in results(folder).items() if n.startswith("pulled-ecq_raw32-dirichlet_0.3-seed_1")
    )
    settings = edgefl.Settings().replace(**result.case.settings)
    assert (settings.codec.name, settings.downlink.name, settings.train.prox_mu) == ("ecq", "raw32", 1.0)
    history = edgefl.simulate("mlp:64-16-10", "digits", settings, devices=12, partition="dirichlet:0.3", workers=2)
    assert params_sha256(history.params) == result.model_sha256, name
    assert [record.accuracy for record in history.rounds] == result.curve.accuracy
    sent = np.cumsum([record.bytes_up + record.bytes_down for record in history.rounds]) / 1e6
    assert result.curve.megabytes == pytest.approx(sent)
    # A device evaluates the model that it has received: that of the round before.
    told = [record.device_accuracy for record in history.rounds]
    assert told[1:] == pytest.approx(result.curve.held_accuracy[:-1], abs=1e-6)


def test_seeds_are_paired(folder):
    """Runs of one seed, whatever their strategy and codec, begin with the same weights and the same split."""
    first = {}
    for name, result in results(folder).items():
        if not name.startswith("trial") and "faults" not in result.case.fleet:
            where = (result.case.fleet.get("partition", "iid"), result.case.seed)
            first.setdefault(where, set()).add(result.case.settings.get("train.seed", 0))
    assert set(first) == {(p, s) for p in ("iid", "dirichlet:0.3") for s in (0, 1)}
    assert all(len(seeds) == 1 for seeds in first.values())


def test_trials_have_seeds_of_their_own_and_an_equal_number(folder):
    trials = [result for name, result in results(folder).items() if name.startswith("trial")]
    compared = [result for name, result in results(folder).items() if not name.startswith("trial")]
    assert not {result.case.seed for result in trials} & {result.case.seed for result in compared}
    assert {len(result.curve.rounds) for result in trials} == {2}
    assert {result.case.settings.get("train.lr", 0.1) for result in compared} == {0.1}  # not 0.0001


def test_the_table_has_every_protocol(folder):
    text = (folder / "table.md").read_text()
    for title in ("## iid\n", "## dirichlet:0.3 · dropout:0.4:5\n", "## Robustness", "## Tuning"):
        assert title in text
    assert text.count("Quality under a budget") == text.count("Cost to a target") == 4
    assert "| worst tenth of devices |" in text and "Not run" not in text
    rows = [line for line in text.splitlines() if line.startswith("| pulled")]
    assert all(len(row.split("|")) > 5 for row in rows)
    with open(folder / "runs.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == RUNS
    assert {row["model_sha256"] for row in table} == {
        r.model_sha256 for n, r in results(folder).items() if not n.startswith("trial")
    }
    assert all(float(row["worst_accuracy"]) < float(row["accuracy"]) for row in table)


def test_figures_are_drawn_for_each_cost_that_was_measured(folder):
    pytest.importorskip("matplotlib")
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == {"against-rounds.png", "against-megabytes.png", "against-hours.png"}
    assert all((folder / name).stat().st_size > 10_000 for name in drawn)


def test_another_strategy_is_added_to_the_folder(folder, tmp_path, capsys):
    """Nothing that is there is run again, and what is added is measured by what was there first."""
    before = results(folder)
    (tmp_path / "longer.toml").write_text(EXPERIMENT.replace('["fedavg"]', '["fedavg", "fedavgm"]'))
    words = [str(tmp_path / "longer.toml"), "--out", str(folder)]
    words += ["--set", 'compare.partitions=["iid"]', "--set", 'compare.faults=[""]']
    assert main(["tune", *words, "--json"]) == 0
    rows = {row["strategy"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["fedavg", "fedavgm", "pulled"]
    assert [len(rows[name]["trials"]) for name in rows] == [2, 2, 4]
    assert rows["fedavg"]["best"] == {"lr": 0.1} and rows["fedavg"]["at_edge"] == []
    assert main(["compare", *words, "--no-figures"]) == 0
    assert capsys.readouterr().out.startswith("2 runs, ")
    added = {name for name in results(folder) if name not in before}
    compared = [name for name in added if not name.startswith("trial")]
    assert len(added - set(compared)) == 2
    assert sorted(name.rpartition("-")[0] for name in compared) == [f"fedavgm-ecq_raw32-iid-seed_{n}" for n in (0, 1)]
    assert "| fedavgm" in (folder / "table.md").read_text()
    capsys.readouterr()
    assert main(["compare", *words, "--no-figures", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    with open(folder / "runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    for row in printed:
        own = [float(run["accuracy"]) for run in runs if run["variant"] == row["variant"]]
        first = [float(run["accuracy"]) for run in runs if run["variant"] == "fedavg"]
        assert row["accuracy"][0] == pytest.approx(np.mean(own)) and row["accuracy"][2] == 2
        assert row["difference"][0] == pytest.approx(np.mean(own) - np.mean(first))
    assert [row["variant"] for row in printed] == list(rows)
