"""`edgefl new`: what it writes works by the commands of its own README, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import pty
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from brokers import eventually, free_port, require_mosquitto
from onnx_files import SEVERAL, onnx_model
from own_table import STATES, as_root, commands, shell, write_table

from edgefl.cli.main import main
from edgefl.errors import DataError, EdgeFLError, ModelError, UsageError
from edgefl.history_files import read_records
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx import zoo
from edgefl.project.questions import ask
from edgefl.project.sample import read_sample
from edgefl.project.wanted import Wanted
from edgefl.project.write import Made, make
from edgefl.settings import files


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "machines.csv")


@pytest.mark.parametrize("keys", [False, True], ids=["open", "keys"])
def test_the_readmes_commands_lead_to_a_model_that_tells_the_states_apart(keys, table, tmp_path):
    require_mosquitto()
    folder, port = tmp_path / "fleet", free_port()
    data = str(table)
    made = make(
        Wanted(
            folder, data, broker=f"mqtt{'s' * keys}://localhost:{port}", keys=keys, devices=("pi-01", "pi-02"),
            split=True,
        )
    )  # fmt: skip
    assert made.sample.labels == tuple(sorted(STATES)) and made.federated
    assert "mean=" not in made.sample.spec.replace("missing=mean", "")
    script = commands((folder / "README.md").read_text()).replace("interval_s=2", "interval_s=0.2")
    running, status, rest = script.partition("edgefl status ")
    watch, kill, _ = rest.partition("kill $(jobs -p)")
    assert status and kill and len(running.split("\n")) <= 12
    if os.geteuid() == 0:  # mosquitto would drop to a user who may not read this folder
        running = as_root(running)
    history, log = folder / "state" / "history.jsonl", tmp_path / "log"
    with shell(running, tmp_path, log):
        try:
            eventually(lambda: history.exists() and len(read_records(history)) >= 10, 90.0)
        except AssertionError:
            pytest.fail(log.read_text())
        words = [sys.executable, "-m", "edgefl", "status", "--json", *shlex.split(watch)]
        seen = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    assert seen.returncode == 0 and "pi-01" in seen.stdout and "pi-02" in seen.stdout, seen.stderr
    records = read_records(history)
    assert {name for record in records for name in record.devices} == {"pi-01", "pi-02"}
    assert "Traceback" not in log.read_text()
    assert "loss: cross_entropy (as `loss` says)" in log.read_text()
    notes = {entry.key: entry.value for entry in onnx.load(folder / "state" / "model.onnx").metadata_props}
    assert json.loads(notes["edgefl.labels"]) == list(made.sample.labels)
    assert json.loads(notes["edgefl.columns"]) == ["temp", "rpm", "load"] and "edgefl.scaling" in notes
    assert accuracy_of(folder / "state" / "model.onnx", made) > 0.9


def test_a_table_of_a_german_spreadsheet_is_dealt_without_any_option(tmp_path):
    lines = [f"{i % 7},5;{i % 5};{('läuft', 'stört')[i % 2]}" for i in range(40)]
    (tmp_path / "a.csv").write_bytes("\r\n".join(["Wärme;Größe;Zustand", *lines, ""]).encode("cp1252"))
    made = make(Wanted(tmp_path / "fleet", f"{tmp_path / 'a.csv'}?target=Zustand", keys=False, split=True))
    assert made.sample.labels == ("läuft", "stört") and made.sample.dataset.columns == ("Wärme", "Größe")
    assert len(made.sample.dataset.x_train) == 20 and "encoding" not in made.sample.spec


def accuracy_of(path: Path, made: Made) -> float:
    """Of onnxruntime, on the raw columns of the sample, whose blanks are filled."""
    x, y = made.sample.dataset.x_train, made.sample.dataset.y_train
    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {session.get_inputs()[0].name: x})[0]
    return float((outputs.argmax(1) == y).mean())


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "cnn1d", "gru", "autoencoder"])
def test_the_settings_of_every_template_run_in_the_simulator(name, tmp_path, capsys, monkeypatch):
    """`edgefl simulate --config` runs the very file, and the loss falls."""
    rng = np.random.default_rng(1)
    kind = np.arange(160) % 2
    shape = {"linear": (5,), "mlp": (5,), "cnn": (8, 8), "cnn1d": (32, 3), "gru": (12, 2), "autoencoder": (6,)}[name]
    x = rng.normal(0, 0.4, (160, *shape)) + np.where(kind, 0.8, -0.8).reshape(-1, *[1] * len(shape))
    x = x.astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=x if name == "autoencoder" else kind)
    folder = tmp_path / name
    make(Wanted(folder, f"npz:{tmp_path / 'data.npz'}", name, keys=False))
    monkeypatch.chdir(folder)
    words = ["--data", f"npz:{tmp_path / 'data.npz'}", "--devices", "2", "--rounds", "8", "--json", "run.json"]
    assert main(["simulate", "--config", "aggregator.toml", *words]) == 0, capsys.readouterr().err
    rounds = json.loads((folder / "run.json").read_text())["rounds"]
    assert rounds[-1]["loss"] < 0.9 * rounds[0]["loss"]


def test_targets_of_another_size_are_scaled_and_an_autoencoder_needs_no_target(table, tmp_path, capsys, monkeypatch):
    """A regression of a speed in thousands, and a model that restores raw columns: both run as they are written."""
    monkeypatch.chdir(tmp_path)
    for name, data in (("speed", f"csv:{table}?target=rpm&features=temp,load"), ("restore", f"csv:{table}?target=*")):
        words = ["--devices", "2", "--rounds", "8", "--json", str(tmp_path / f"{name}.json")]
        made = make(
            Wanted(
                tmp_path / name, f"{data}&missing=mean" if name == "speed" else f"{data}&features=rpm,load", keys=False
            )
        )
        source = made.sample.spec
        assert ("target_mean=" in source) == (name == "speed") and "std=" in source
        assert (
            main(
                [
                    "simulate",
                    "--config",
                    f"{name}/aggregator.toml",
                    "--model",
                    f"{name}/model.onnx",
                    "--data",
                    source,
                    *words,
                ]
            )
            == 0
        )
        rounds = json.loads((tmp_path / f"{name}.json").read_text())["rounds"]
        assert all(one["state"] == "committed" for one in rounds) and rounds[-1]["loss"] < 0.8 * rounds[0]["loss"]


def test_it_never_overwrites_and_leaves_nothing_behind_when_it_fails(table, tmp_path, capsys):
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    data = f"csv:{table}?target=state"
    cases = {
        there: (["--data", data], "nothing is overwritten"),
        table: (["--data", data], "nothing is overwritten"),
        tmp_path / "no" / "folder": (["--data", data], "make it first"),
        tmp_path / "a": (["--data", "csv:nowhere.csv?target=state"], "no data at"),
        tmp_path / "b": (["--data", f"csv:{table}?target=stat"], "did you mean 'state'"),
        tmp_path / "c": (["--data", data, "--model", "cnn2"], "no file and no template"),
        tmp_path / "d": (["--data", data, "--model", "cnn"], "takes images"),
        tmp_path / "e": (["--data", data, "--model", "autoencoder"], r"target=\*"),
        tmp_path / "f": (["--data", data, "--broker", "mqtt://host"], "--open for a trial"),
        tmp_path / "g": (["--data", data, "--broker", "mqtts://u:p@host"], "password"),
        tmp_path / "h": (["--data", data, "--devices", "a,a"], "each once"),
        tmp_path / "i": (["--data", data, "--devices", "a/b"], "device id"),
        tmp_path / "j": (["--data", "digits", "--split"], "csv: table"),
        tmp_path / "k": ([], "no terminal"),
        tmp_path / "Z Z": (["--data", data, "--federation", "Z"], "federation name"),
        tmp_path / "l": (["--data", data, "--loss", "mse", "--open"], "cross_entropy"),
    }
    for folder, (words, text) in cases.items():
        code = main(["new", str(folder), *words])
        err = capsys.readouterr().err
        assert code in (1, 2) and text.replace("\\", "") in err, (folder, err)
        assert sorted(tmp_path.rglob("*")) == before, folder


def test_flags_alone_write_all_and_say_what_they_found(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "machines.csv", "--broker", "mqtts://broker.example.org", "--devices", "a,b,c"]
    assert main(["new", "My_Fleet", *words]) == 0
    said = capsys.readouterr().out
    assert "classes: fault, ok, worn" in said and "target=state is a guess" in said
    assert "loss cross_entropy (inferred: the targets are labels" in said
    folder = tmp_path / "My_Fleet"
    config = files.load(folder / "aggregator.toml", AggregatorConfig)
    assert (config.federation, config.loss, config.rounds.expect) == ("my-fleet", "cross_entropy", 3)
    assert sorted(path.name for path in (folder / "keys" / "devices").iterdir()) == ["a.tar", "b.tar", "c.tar"]
    assert "plugin /usr" in (folder / "keys" / "broker" / "mosquitto.conf").read_text()
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o600 for name in ("aggregator.toml", "README.md"))
    onnx.checker.check_model(onnx.load(folder / "model.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["My_Fleet", "machines.csv"]


def test_devices_of_their_own_data_number_their_labels_alike(table, tmp_path):
    """A device that has never seen a fault numbers the other states as those that have."""
    lines = table.read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(line for line in lines if not line.endswith("fault")))
    (tmp_path / "b.csv").write_text("\n".join(lines))
    made = make(Wanted(tmp_path / "fleet", f"csv:{tmp_path}/{{name}}.csv?target=state", devices=("a", "b"), keys=False))
    assert made.sample.labels == ("fault", "ok", "worn") and made.choice.model.output_shape == (3,)
    assert all("labels=fault,ok,worn" in (tmp_path / f"fleet/devices/{n}/agent.toml").read_text() for n in "ab")


def test_the_users_own_file_is_checked_against_the_data(table, tmp_path):
    path = tmp_path / "own.onnx"
    data = f"csv:{table}?target=state&mean=50,1800,0.01&std=10,300,0.01"
    onnx.save(zoo.mlp([3, 8, 3]), path)
    made = make(Wanted(tmp_path / "good", data, str(path), keys=False))
    assert made.choice.model.plan.loss == "cross_entropy", "labels, although the output has the input's shape"
    assert not made.federated
    made = make(Wanted(tmp_path / "raw", f"csv:{table}?target=state", str(path), keys=False))
    assert made.federated
    made = make(Wanted(tmp_path / "one", f"csv:{table}?target=state", str(path), keys=False, devices=("alone",)))
    assert not made.federated and "&std=" in made.sample.spec, "nobody learns from one device's statistics"
    onnx.save(zoo.mlp([4, 8, 3]), path)
    with pytest.raises(DataError, match="3 values, and the model's input"):
        make(Wanted(tmp_path / "bad", data, str(path), keys=False))
    onnx.save(zoo.mlp([3, 8, 2]), path)
    with pytest.raises(EdgeFLError, match="2"):
        make(Wanted(tmp_path / "bad", data, str(path), keys=False))
    path.write_bytes(b"no model")
    with pytest.raises(ModelError):
        make(Wanted(tmp_path / "bad", data, str(path), keys=False))


def test_a_file_that_scales_by_itself_is_left_to_do_so(table, tmp_path):
    skl2onnx, sklearn = pytest.importorskip("skl2onnx"), pytest.importorskip("sklearn")
    assert sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dataset = read_sample(f"csv:{table}?target=state&missing=mean", ["a"]).dataset
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(dataset.x_train[:20], dataset.y_train[:20])
    onnx.save(skl2onnx.to_onnx(pipeline, dataset.x_train[:1]), tmp_path / "own.onnx")
    made = make(Wanted(tmp_path / "fleet", f"csv:{table}?target=state", str(tmp_path / "own.onnx"), keys=False))
    assert not made.federated and "&std=" not in made.sample.spec
    assert made.choice.model.plan.loss == "cross_entropy"


def test_a_model_of_several_inputs_and_outputs_is_tried_on_its_own_columns(tmp_path):
    """Tokens and labels among the columns are not scaled."""
    onnx.save(onnx_model(SEVERAL), tmp_path / "two.onnx")
    rng = np.random.default_rng(0)
    arrays = {"y.size": rng.normal(9, 1, (40, 1)), "y.kind": rng.integers(0, 3, 40)}
    np.savez(tmp_path / "own.npz", **arrays, **{"x.b": rng.integers(0, 6, (40, 2)), "x.a": rng.normal(9, 1, (40, 4))})
    loss, data, model = "kind=cross_entropy, size=mse:0.01", f"npz:{tmp_path / 'own.npz'}", str(tmp_path / "two.onnx")
    made = make(Wanted(tmp_path / "fleet", data, model, keys=False, devices=("a", "b"), loss=loss))
    assert "mean=" not in made.sample.spec and not made.federated
    assert files.load(tmp_path / "fleet/aggregator.toml", AggregatorConfig).loss == loss
    assert f"loss {loss}" in (tmp_path / "fleet/README.md").read_text()


def test_questions_are_asked_for_what_no_option_says():
    given = dict.fromkeys(("data", "model", "devices", "split", "keys", "broker"))
    asked: list[str] = []

    def read(*answers: str):
        left = iter(answers)

        def answer(question: str) -> str:
            asked.append(question)
            return next(left)

        return answer

    answers = ask(given, read("", "csv:a.csv?target=t", "", "", "y", "", ""))
    assert answers == {
        "data": "csv:a.csv?target=t", "model": "auto", "devices": "dev-01,dev-02", "split": True, "keys": True,
        "broker": "mqtts://localhost:8883",
    }  # fmt: skip
    assert len(asked) == 7, "data twice, since it has no default"
    answers = ask({**given, "data": "digits", "model": "mlp", "keys": False}, read("a,b", "mqtt://h"))
    assert answers["broker"] == "mqtt://h" and not answers["split"]


def test_on_a_terminal_it_asks_and_answers_that_end_early_write_nothing(table, tmp_path):
    """A pseudo-terminal, as a person has one."""
    python = [sys.executable, "-m", "edgefl", "new"]
    for name, answers, code in (("asked", f"{table}\n\n\ny\nn\n\n", 0), ("ended", f"{table}\n\x04", 2)):
        ours, theirs = pty.openpty()
        one = subprocess.Popen(
            [*python, name], cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.write(ours, answers.encode())
        out, err = one.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert one.returncode == code, (out, err)
        assert (tmp_path / name).exists() == (code == 0) and b"Traceback" not in err
    assert (tmp_path / "asked" / "data" / "dev-02.csv").exists() and not (tmp_path / "asked" / "keys").exists()


def test_a_wanted_federation_is_named_after_its_folder(tmp_path):
    assert Wanted(tmp_path / "My fleet_2", "digits").name == "my-fleet-2"
    with pytest.raises(UsageError, match="federation name"):
        Wanted(tmp_path / "___", "digits")
