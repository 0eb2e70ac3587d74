"""What a run of `edgefl compare` measures, and how it goes on or fails."""

from __future__ import annotations

import numpy as np
import pytest
from run_files import results

import edgefl
from edgefl.cli.main import main
from edgefl.experiments import tables
from edgefl.experiments.experiment import Experiment
from edgefl.experiments.grid import Grid
from edgefl.settings import files

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
    from edgefl.simulation.resume import journal as journals

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
            train = edgefl.simulation.tasks.task.train_update
            patch.setattr(
                "edgefl.simulation.tasks.task.train_update",
                lambda trainer, job, *rest, train=train, **more: (
                    trained.append(job.round.round) or train(trainer, job, *rest, **more)
                ),
            )
            again = measure(case, file)
        assert set(trained) == {3} and not list(tmp_path.glob("run.*"))
        assert (again.curve, again.model_sha256) == (whole.curve, whole.model_sha256)
        file.write_text("no journal")  # it is of no use: the run begins anew
        assert measure(case, file).model_sha256 == whole.model_sha256


def test_adapters_are_judged_on_what_devices_hold_out(tmp_path):
    from edgefl.experiments.measure import measure

    (tmp_path / "few.toml").write_text(PERSONAL.replace("[compare]", "adapters = { rank = 2 }\n[compare]"))
    grid = Grid(files.load(tmp_path / "few.toml", Experiment))
    found = measure(grid.case(next(grid.cells()), 0), tmp_path / "run.journal")
    assert found.curve.held_loss[-1] < found.curve.held_loss[0]


@pytest.mark.parametrize("ending", ["with its result", "without one"])
def test_a_run_that_another_process_has_under_way_is_waited_for(ending, tmp_path, monkeypatch):
    """Of a command that was killed, while its processes went on."""
    from edgefl.experiments import worker
    from edgefl.simulation.resume.journal import Journal

    (tmp_path / "few.toml").write_text(PERSONAL)
    grid = Grid(files.load(tmp_path / "few.toml", Experiment))
    case = grid.case(next(grid.cells()), 0)
    other, looks = Journal(tmp_path / "run.journal"), []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            if ending == "with its result":
                (tmp_path / "run.json").write_text("the other's")
            other._file.remove()

    monkeypatch.setattr(worker.time, "sleep", sleep)
    assert worker.run(worker.Task(case, str(tmp_path / "run.json"))) == worker.Answer()
    assert len(looks) == 3
    assert ((tmp_path / "run.json").read_text() == "the other's") == (ending == "with its result")


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
    assert "1 run failed" in said.err and "about to die" in said.err
    text = (tmp_path / "table.md").read_text()
    assert "deadly:Deadly · iid · seed 0: its process ended with 7" in text
    assert len(results(tmp_path)) == 2
