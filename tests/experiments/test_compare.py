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

import msgspec
import numpy as np
import pytest
from conftest import ROOT

import edgefl
from edgefl.cli.main import main
from edgefl.core.params import params_sha256
from edgefl.errors import UsageError
from edgefl.experiments import tables, tuning
from edgefl.experiments.experiment import Experiment
from edgefl.experiments.grid import Grid
from edgefl.experiments.results import Result
from edgefl.experiments.tuning import points_of
from edgefl.settings import files
from edgefl.settings.render import render

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


def results(folder: Path) -> dict[str, Result]:
    """By file name."""
    found = sorted((folder / "runs").glob("*.json"))
    return {path.name: msgspec.json.decode(path.read_bytes(), type=Result) for path in found}


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


PERSONAL = """
model = "mlp:64-16-10"
data = "digits"
fleet = { devices = 10 }
rounds = { rounds = 3 }
evaluate = { holdout = 0.3 }
[compare]
partitions = ["iid"]
seeds = 1
judge = "devices"
strategies = ["fedavg"]
[compare.variants.own-head]
strategy = "fedavg"
"personal.keep" = ["head"]
"""


def test_devices_judge_models_of_their_own(tmp_path):
    (tmp_path / "few.toml").write_text(PERSONAL)
    options = ["--out", str(tmp_path), "--no-figures", "--jobs", "1"]
    assert main(["compare", str(tmp_path / "few.toml"), *options]) == 0
    found = results(tmp_path)
    assert len(found) == 2
    for result in found.values():
        history = edgefl.simulate("mlp:64-16-10", "digits", result.case.to_settings(), devices=10, partition="iid")
        # All devices report in every round, so the newest reports are the round's
        assert result.curve.held_accuracy == pytest.approx([r.device_accuracy for r in history.rounds], abs=1e-6)
        assert all(
            worst < mean for worst, mean in zip(result.curve.worst_accuracy, result.curve.held_accuracy, strict=True)
        )
    rows = {
        line.split()[1]: line
        for line in (tmp_path / "table.md").read_text().splitlines()
        if "| own-" in line or "| fedavg" in line
    }
    assert len(rows) == 2 and "accuracy on held-out examples" in (tmp_path / "table.md").read_text()
    # Judged as one model, there is nothing to say of a model that no device uses
    assert main(["compare", str(tmp_path / "few.toml"), *options, "--set", "compare.judge=model"]) == 0
    own = next(r for r in results(tmp_path).values() if r.case.judge == "model" and "personal.keep" in r.case.settings)
    assert own.curve.accuracy == own.curve.held_accuracy == [None] * 3


def test_examples_are_held_out_as_the_devices_have_them(tmp_path):
    """A partition that shifts the data shifts what judges the model too."""
    (tmp_path / "few.toml").write_text(PERSONAL.replace("iid", "iid+noise:3").replace('judge = "devices"', ""))
    words = ["compare", str(tmp_path / "few.toml"), "--out", str(tmp_path), "--no-figures", "--jobs", "1"]
    assert main([*words, "--set", "downlink.name=raw32"]) == 0
    result = next(result for name, result in results(tmp_path).items() if name.startswith("fedavg"))
    history = edgefl.simulate("mlp:64-16-10", "digits", result.case.to_settings(), devices=10, partition="iid+noise:3")
    told = [record.device_accuracy for record in history.rounds]
    assert told[1:] == pytest.approx(result.curve.held_accuracy[:-1], abs=1e-6)


def test_hours_and_joules_are_those_of_the_devices(tmp_path, capsys):
    (tmp_path / "fleet.toml").write_text("""
[[devices]]
profile = "pi-4"
link = "wifi"
[[devices]]
examples_per_s = 10.0
active_watts = [2.0, 4.0]
joules_per_mb_up = [1.0, 3.0]
""")
    (tmp_path / "few.toml").write_text(f"""
model = "mlp:64-10"
data = "digits"
devices_file = "{tmp_path / "fleet.toml"}"
[fleet]
devices = 4
[rounds]
rounds = 3
[compare]
seeds = 1
budgets = {{ joules = 1e9 }}
targets = [0.05]
""")
    assert main(["compare", str(tmp_path / "few.toml"), "--out", str(tmp_path), "--jobs", "1"]) == 0
    (result,) = results(tmp_path).values()
    history = edgefl.simulate(
        "mlp:64-10", "digits", result.case.to_settings(), devices=4, world=tmp_path / "fleet.toml"
    )
    assert result.curve.hours == [record.elapsed_s / 3600 for record in history.rounds]
    spent = np.cumsum([record.joules for record in history.rounds], axis=0)
    assert np.allclose(np.transpose([result.curve.joules_low, result.curve.joules_high]), spent)
    assert (spent[:, 0] < spent[:, 1]).all() and result.curve.joules == pytest.approx(spent.mean(axis=1))
    said = capsys.readouterr().out
    low, high = (tables.number(value) for value in spent[-1])
    assert f" {low}–{high} |" in said and "1000000000 J" in said
    assert (tmp_path / "against-joules.png").exists()
    (tmp_path / "fleet.toml").write_text("[[devices]]\nexamples_per_s = 20.0\n")  # another fleet, another run
    assert main(["compare", str(tmp_path / "few.toml"), "--out", str(tmp_path), "--jobs", "1", "--no-figures"]) == 0
    assert len(results(tmp_path)) == 2


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    from edgefl.experiments.measure import measure
    from edgefl.simulation import journal as journals

    monkeypatch.setattr(journals, "LEAST_S", 0.0)  # a checkpoint after each round
    monkeypatch.setattr(journals, "SHARE", 1e9)
    (tmp_path / "few.toml").write_text(PERSONAL + "[compare.variants.own]\nstrategy = 'ditto'\n")
    grid = Grid(files.load(tmp_path / "few.toml", Experiment))
    file, trained = tmp_path / "run.journal", []
    for cell in grid.cells():
        case = grid.case(cell, 0)
        whole = measure(case, file)
        assert not list(tmp_path.glob("run.*"))

        def stop(record):
            if record.round == 2:
                raise KeyboardInterrupt

        fleet = {"devices": 10, "partition": "iid", "workers": 1}
        with pytest.raises(KeyboardInterrupt):
            edgefl.simulate("mlp:64-16-10", "digits", case.to_settings(), **fleet, on_round=stop, resume=file)
        assert file.exists()
        with monkeypatch.context() as patch:
            train = edgefl.simulation.task.train_update
            patch.setattr(
                "edgefl.simulation.task.train_update",
                lambda trainer, job, *rest, train=train, **more: (
                    trained.append(job.round.round) or train(trainer, job, *rest, **more)
                ),
            )
            again = measure(case, file)
        assert set(trained) == {3} and not list(tmp_path.glob("run.*"))
        assert (again.curve, again.model_sha256) == (whole.curve, whole.model_sha256)
        file.write_text("no journal")  # it is of no use: the run begins anew
        assert measure(case, file).model_sha256 == whole.model_sha256


def test_a_process_that_dies_fails_its_own_run_alone(tmp_path, capfd):
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "from edgefl.strategies.presets import fedavg\n"
        "from edgefl.strategies.composed import Composed\n"
        "class Deadly(Composed):\n"
        "    def __init__(self):\n"
        "        made = fedavg()\n"
        "        super().__init__('deadly', combine=made.combine, server=made.server)\n"
        "    def finish(self):\n"
        "        print('about to die', flush=True)\n"
        "        os._exit(7)\n"
    )
    (tmp_path / "few.toml").write_text(
        'model = "mlp:64-10"\ndata = "digits"\n[fleet]\ndevices = 4\n[rounds]\nrounds = 1\n'
        '[compare]\nstrategies = ["fedavg", "deadly:Deadly", "fedsgd"]\nseeds = 1\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert main(["compare", str(tmp_path / "few.toml"), "--out", str(tmp_path), "--no-figures", "--jobs", "1"]) == 1
    said = capfd.readouterr()
    assert "1 runs failed" in said.err and "about to die" in said.err
    text = (tmp_path / "table.md").read_text()
    assert "deadly:Deadly · iid · seed 0: its process ended with 7" in text
    assert len(results(tmp_path)) == 2


WRONG = {
    "strategies": ('compare.strategies=["fedavgg"]', "did you mean 'fedavg'"),
    "codecs": ('compare.codecs=["raw33"]', "did you mean 'raw32'"),
    "faults": ('compare.faults=["dropuot:0.1"]', "did you mean 'dropout'"),
    "budgets": ('compare.budgets={"megabyte": 3}', "did you mean 'megabytes'"),
    "grid": ('tune.grid={"lr": [-1.0]}', "train.lr is -1.0: give a number above 0"),
    "option": ('tune.grid={"serverlr": [1.0]}', "serverlr"),
    "own": ('tune.own={"fedadamm": {"lr": [1.0]}}', "there is no such strategy or variant"),
    "empty": ('tune.grid={"lr": []}', "lr has no values to try"),
    "workers": ("fleet.workers=2", "--jobs says how many"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_before_anything_is_run(name, tmp_path, capsys):
    changed, said = WRONG[name]
    (tmp_path / "experiment.toml").write_text('model = "mlp:64-10"\ndata = "digits"\n')
    words = ["compare", str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "out"), "--set", changed]
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out" / "runs").glob("*.json"))


def test_two_commands_at_once_are_refused(tmp_path, capsys):
    from edgefl.experiments.folder import opened

    (tmp_path / "experiment.toml").write_text('model = "mlp:64-10"\ndata = "digits"\n')
    with opened(tmp_path, 1, print):
        assert main(["compare", str(tmp_path / "experiment.toml"), "--out", str(tmp_path)]) == 2
    assert "another command is at work" in capsys.readouterr().err


def test_a_sample_of_the_file_is_one_that_can_be_read(tmp_path):
    (tmp_path / "sample.toml").write_text(render(Experiment))
    with pytest.raises(UsageError) as refused:  # what it needs is commented out
        files.load(tmp_path / "sample.toml", Experiment)
    assert "needs model" in str(refused.value) or "needs data" in str(refused.value)


def test_the_example_is_an_experiment_that_runs(tmp_path):
    example = files.load(ROOT / "examples" / "compare_strategies.toml", Experiment)
    grid = Grid(example)
    assert list(grid.variants) == ["fedavg", "fedadam", "scaffold", "feddyn", "fedprox"]
    plans = [
        tuning.trials_of(grid, variant) for variant in grid.variants
    ]  # a value that is not allowed is refused here
    assert [len(points) for points in plans] == [4] * 5


def test_points_are_all_combinations_or_as_many_as_the_budget_has():
    space = {"lr": [0.01, 0.1, 1.0], "epochs": [1, 5]}
    assert len(points_of(space, None, 0)) == len(points_of(space, 6, 0)) == 6
    some = points_of(space, 3, 0)
    assert len({repr(point) for point in some}) == 3
    assert sorted(point["lr"] for point in some) == [0.01, 0.1, 1.0]  # each value as often as any
    assert some == points_of(space, 3, 0) != points_of(space, 3, 1)
    assert len({repr(point) for point in points_of(space, 5, 7)}) == 5


def test_an_option_of_a_strategy_is_tuned_beside_settings(tmp_path):
    (tmp_path / "experiment.toml").write_text('model = "mlp:64-10"\ndata = "digits"\n')
    experiment = files.load(tmp_path / "experiment.toml", Experiment, ['compare.strategies=["fedavgm:momentum=0.5"]'])
    grid = Grid(experiment)
    case = grid.case(next(grid.cells()), 3, {"server_lr": 0.5, "lr": 0.2, "codec": "ecq"})
    assert case.settings["strategy.name"] == "fedavgm:momentum=0.5,server_lr=0.5"
    assert (case.settings["train.lr"], case.settings["codec.name"], case.seed) == (0.2, "ecq", 3)
    assert grid.case(next(grid.cells()), 3).key != case.key
