"""simulate() and `edgefl simulate --config`: specs and objects, settings and overrides, and wrong types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import edgefl
from edgefl import Settings, data
from edgefl.cli import main as cli
from edgefl.errors import UsageError
from edgefl.settings import CodecSettings, TrainSettings

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = {"devices": 4, "rounds": 2, "workers": 1}


def test_specs_and_objects_are_the_same_run():
    by_spec = edgefl.simulate("mlp:64-10", "digits", **SMALL)
    by_object = edgefl.simulate(edgefl.load(edgefl.onnx.zoo.from_spec("mlp:64-10")), data.load("digits"), **SMALL)
    assert by_spec.to_json() == by_object.to_json()


def test_names_keys_sections_and_settings_are_the_same_run():
    ways: list[tuple[Settings | None, dict[str, Any]]] = [
        (None, {"lr": 0.05, "epochs": 2, "codec": "ecq:step=2"}),
        (None, {"train.lr": 0.05, "train.epochs": 2, "codec.name": "ecq:step=2"}),
        (None, {"train": TrainSettings(lr=0.05, epochs=2), "codec": CodecSettings(name="ecq:step=2")}),
        (Settings(train=TrainSettings(lr=0.05)), {"epochs": 2, "codec": "ecq:step=2"}),
        (None, {"epochs": 2, "train": TrainSettings(lr=0.05), "codec": "ecq:step=2"}),
        (None, {"train": TrainSettings(lr=0.05), "epochs": 2, "codec": "ecq:step=2"}),
        (Settings().replace(lr=0.05, epochs=9, codec="ecq:step=2"), {"epochs": 2}),
    ]
    runs = {edgefl.simulate("mlp:64-10", "digits", settings, **SMALL, **more).to_json() for settings, more in ways}
    assert len(runs) == 1


def test_the_params_of_each_committed_round_are_told_before_the_round():
    told, rounds = [], []
    history = edgefl.simulate(
        "mlp:64-10", "digits", **SMALL, evaluate_every=2, holdout=0.2,
        on_model=lambda record, params: told.append((record.round, params)),
        on_round=lambda record: rounds.append((record.round, record.state, len(told))),
    )  # fmt: skip
    assert rounds == [(1, "committed", 1), (2, "evaluated", 1)]
    assert [number for number, _ in told] == [1]
    assert (told[0][1] == history.params).all()


WRONG = {
    "model": ((5, "digits"), {}, "model is 5 (int): give edgefl.load(...), an ONNX file or a spec"),
    "data": (("mlp:64-10", 5), {}, 'data is 5 (int): give edgefl.data.load(...), a Dataset or a spec such as "digits"'),
    "settings": (("mlp:64-10", "digits", {"lr": 1}), {}, "settings is {'lr': 1} (dict): give edgefl.Settings"),
    "devices": ((), {"devices": "ten"}, "devices is 'ten': give a whole number of at least 1"),
    "no devices": ((), {"devices": 0}, "devices is 0: give a whole number of at least 1"),
    "workers": ((), {"workers": 1.5}, "workers is 1.5: give a whole number from 1 to 1024"),
    "rounds": ((), {"rounds": "two"}, "rounds.rounds is 'two': give a whole number of at least 1"),
    "seed": ((), {"seed": -1}, "train.seed is -1: give a whole number from 0 to 4294967295"),
    "faults": ((), {"faults": 0.1}, "faults is 0.1: give text"),
    "lr": ((), {"lr": "fast"}, "train.lr is 'fast': give a number above 0, at most 1000000"),
    "batch size": (
        (),
        {"batch_size": None},
        'train.batch_size is None: give a whole number from 1 to 16777216 or "all"',
    ),
    "feedback": ((), {"error_feedback": "on"}, "codec.error_feedback is 'on': give true or false or \"auto\""),
    "section": ((), {"train": CodecSettings()}, "train is a CodecSettings: give a TrainSettings"),
    "inside": ((), {"settings": Settings(train=TrainSettings(lr="x"))}, "train.lr is 'x': give a number"),  # type: ignore[arg-type]
    "no section": ((), {"settings": Settings(train=None)}, "train is None: give a TrainSettings"),  # type: ignore[arg-type]
    "name": ((), {"learning_rate": 0.1}, "there is no setting 'learning_rate': "),
    "form": ((), {"codec": "ecq:step=2,fast"}, "'fast' is not key=value: write ecq:fast=..."),
    "too many workers": ((), {"workers": 10**9}, "workers is 1000000000: give a whole number from 1 to 1024"),
    "callback": ((), {"on_round": "print"}, "on_round is 'print' (str): give a function"),
    "path": (("a\0b", "digits"), {}, "path is 'a\\x00b': give the path of a file"),
    "too few": ((), {"devices": 1}, "1 device can't make the 2 reports that a round needs: set min_reports to 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_is_told_what_was_expected(case):
    given, named, message = WRONG[case]
    with pytest.raises(UsageError) as caught:
        edgefl.simulate(*(given or ("mlp:64-10", "digits")), **named)
    assert str(caught.value).startswith(message) or message in str(caught.value)


def simulate(words: list[str], folder: Path) -> dict[str, Any]:
    """The JSON of a run from the command line."""
    out = folder / "history.json"
    assert cli.main(["simulate", *words, "--json", str(out)]) == 0
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def test_the_file_that_is_deployed_is_simulated(tmp_path, capsys):
    """The shipped sample, all of it: its model and how it is read, its sections; options and --set win over it."""
    model = tmp_path / "start.onnx"
    model.write_bytes(edgefl.onnx.zoo.mlp([64, 16, 10]).SerializeToString())
    text = (ROOT / "broker" / "aggregator.toml.sample").read_text()
    text = text.replace('model = "/etc/edgefl-aggregator/start.onnx"', f'model = "{model}"')
    text = text.replace("freeze = []", 'freeze = ["*"]').replace("also_train = []", 'also_train = ["fc2*"]')
    text = text.replace("lr = 0.1", "lr = 0.03").replace("epochs = 1", "epochs = 2").replace("seed = 0", "seed = 5")
    file = tmp_path / "aggregator.toml"
    file.write_text(text.replace("# rounds = 100", "rounds = 2"))
    words = ["--config", str(file), "--data", "digits", "--devices", "4"]
    told = simulate(words, tmp_path)
    train = told["run"]["settings"]["train"]
    assert (train["lr"], train["epochs"], train["seed"], len(told["rounds"])) == (0.03, 2, 5, 2)
    frozen = edgefl.load(model, freeze=["*"], train=["fc2*"])
    same = edgefl.simulate(frozen, "digits", Settings.load(file), devices=4)
    assert told["final"]["model_sha256"] == same.final.model_sha256
    told = simulate([*words, "--set", "train.momentum=0.5", "--set", "train.lr=0.2", "--lr", "0.3"], tmp_path)
    train = told["run"]["settings"]["train"]
    assert (train["lr"], train["epochs"], train["momentum"]) == (0.3, 2, 0.5)
    assert told["run"]["settings"] != same.run.settings


def test_a_file_of_settings_alone_needs_a_model(tmp_path, capsys):
    file = tmp_path / "settings.toml"
    file.write_text("[train]\nlr = 0.02\n")
    words = ["--config", str(file), "--data", "digits", "--devices", "4", "--rounds", "1"]
    assert cli.main(["simulate", *words]) == 2
    assert "names no model: add model = ..., or give --model" in capsys.readouterr().err
    assert simulate([*words, "--model", "mlp:64-10"], tmp_path)["run"]["settings"]["train"]["lr"] == 0.02
    file.write_text("[train]\nlr = 0\n[trian]\n")
    assert cli.main(["simulate", *words]) == 2
    error = capsys.readouterr().err
    assert "settings.toml: [train] lr is 0: give a number above 0" in error
    assert "settings.toml: the top level has no key 'trian'" in error
