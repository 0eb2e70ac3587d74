"""A name that is misspelt is told before data are read or anything is trained."""

from __future__ import annotations

import pytest

import edgefl
from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.simulation.split.partitions import PARTITIONS

WRONG = {
    "partition": ("dirichet:0.3", "did you mean 'dirichlet'"),
    "partition's argument": ("dirichlet", "write dirichlet:A"),
    "partition's number": ("dirichlet:nan", "give a number of at least 1e-06"),
    "partition's shift": ("iid+rotte:4", "did you mean 'rotate'"),
    "shift's number": ("iid+noise:-1", "give a number of at least 0"),
    "faults": ("dropuot:0.1", "did you mean 'dropout'"),
    "strategy": ("fedavgg", "did you mean 'fedavg'"),
    "strategy's option": ("fedavgm:momentun=0.5", "momentum"),
    "codec": ("raw33", "did you mean 'raw32'"),
    "downlink": ("raw33", "did you mean 'raw32'"),
}


@pytest.fixture
def no_data(monkeypatch):
    """Data that are read fail the test."""

    def read(*args, **options):
        raise AssertionError("the data were read")

    monkeypatch.setattr("edgefl.data.load", read)


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.usefixtures("no_data")
def test_simulate_tells_a_mistake_before_it_reads_data(what, capsys):
    value, said = WRONG[what]
    name = "partition" if what == "shift's number" else what.split("'")[0]
    with pytest.raises(UsageError) as caught:
        edgefl.simulate("mlp:64-10", "digits", **{name: value})
    assert said in str(caught.value)
    assert main(["simulate", "--model", "mlp:64-10", "--data", "digits", f"--{name}", value]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("no_data")
def test_a_devices_file_is_read_before_the_data(tmp_path, capsys):
    (tmp_path / "fleet.toml").write_text("[[devices]]\nshare = 0\n")
    with pytest.raises(UsageError, match="share is 0"):
        edgefl.simulate("mlp:64-10", "digits", world=tmp_path / "fleet.toml")
    words = ["simulate", "--model", "mlp:64-10", "--data", "digits", "--devices-file", str(tmp_path / "fleet.toml")]
    assert main(words) == 2


@pytest.mark.parametrize("what", [what for what in WRONG if what.startswith(("partition", "shift"))])
@pytest.mark.usefixtures("no_data")
def test_edgefl_partition_tells_a_mistake_before_it_reads_data(what, capsys):
    value, said = WRONG[what]
    assert main(["partition", "--data", "digits", "--devices", "4", "--partition", value]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("command", ["compare", "tune"])
@pytest.mark.usefixtures("no_data")
def test_an_experiment_tells_a_mistake_before_it_reads_data(command, what, tmp_path, capsys):
    value, said = WRONG[what]
    name = "partition" if what == "shift's number" else what.split("'")[0]
    variant = f'[compare.variants.own]\nstrategy = "fedavg"\n"{name}.name" = "{value}"\n'
    listed = {
        "partition": f'[compare]\npartitions = ["iid", "{value}"]\n',
        "faults": f'[compare]\nfaults = ["", "{value}"]\n',
        "strategy": f'[compare]\nstrategies = ["fedavg", "{value}"]\n',
        "codec": variant,
        "downlink": variant,
    }[name]
    (tmp_path / "few.toml").write_text(f'model = "mlp:64-10"\ndata = "digits"\n[tune.grid]\nlr = [0.1]\n{listed}')
    assert main([command, str(tmp_path / "few.toml"), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_data")
def test_a_value_to_tune_is_told_before_data_are_read(tmp_path, capsys):
    (tmp_path / "few.toml").write_text('model = "mlp:64-10"\ndata = "digits"\n[tune.grid]\ncodec = ["ecq", "raw33"]\n')
    assert main(["tune", str(tmp_path / "few.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'raw32'" in capsys.readouterr().err


def test_every_partition_that_takes_a_number_has_bounds():
    from edgefl.simulation.split.arguments import BOUNDS

    assert set(BOUNDS) == {name for name, (_, wanted) in PARTITIONS.items() if wanted}


def test_objects_are_taken_as_they_are():
    def halves(dataset, argument, devices, rng):
        return [range(0, 700), range(700, 1400)]

    history = edgefl.simulate(
        "mlp:64-10", "digits", devices=2, rounds=1, partition=halves, strategy=edgefl.strategies.get("fedavgm"),
        codec=edgefl.codecs.get("raw32"),
    )  # fmt: skip
    assert history.final.committed == 1
