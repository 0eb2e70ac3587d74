"""The file of `edgefl compare` and `edgefl tune`: mistakes in it, the sample, the example, and the points to try."""

from __future__ import annotations

import pytest
from conftest import ROOT

from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.experiments import tuning
from edgefl.experiments.experiment import Experiment
from edgefl.experiments.grid import Grid
from edgefl.experiments.tuning import points_of
from edgefl.settings import files
from edgefl.settings.render import render

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
