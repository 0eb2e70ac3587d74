"""The command lines: exit codes, what they print and write, and what each mistake is told."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from edgefl_agent import __main__ as agent
from edgefl_agent.config import AgentConfig
from edgefl_broker import __main__ as aggregator
from edgefl_broker.helper import __main__ as helper
from edgefl_broker.helper.config import HelperConfig

import edgefl
from edgefl.cli import main as cli
from edgefl.errors import ModelError
from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files
from edgefl.settings.render import render

ROOT = Path(__file__).resolve().parent.parent.parent


class Daemon(NamedTuple):
    main: Callable[[list[str]], int]
    schema: type[msgspec.Struct]
    sample: Path


DAEMONS = {
    "agent": Daemon(agent.main, AgentConfig, ROOT / "device_agent" / "agent.toml.sample"),
    "aggregator": Daemon(aggregator.main, AggregatorConfig, ROOT / "broker" / "aggregator.toml.sample"),
    "helper": Daemon(helper.main, HelperConfig, ROOT / "broker" / "helper.toml.sample"),
}
SIMULATE = ("simulate", "--model", "mlp:64-10", "--data", "digits", "--devices", "4", "--rounds", "2", "--workers", "1")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """run(words..., main=cli.main) -> (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]

    def call(*words: object, main: Callable[[list[str]], int] = cli.main) -> tuple[int, str, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as leave:  # argparse's way
            code = int(leave.code or 0)
        return code, *capsys.readouterr()

    yield call
    root.setLevel(level)
    root.handlers[:] = handlers


def option(name: str, value: object) -> tuple[object, ...]:
    """A short simulation with one option set; the last of two wins."""
    return (*SIMULATE, name, value)


# ---- done: 0


def test_version(run):
    assert run("--version") == (0, f"edgefl {edgefl.__version__}\n", "")
    for daemon in DAEMONS.values():
        assert run("--version", main=daemon.main)[:2] == (0, f"edgefl {edgefl.__version__}\n")


def test_what_devices_hold_out_is_in_every_line_and_in_the_json(run, tmp_path):
    words = ("--holdout", 0.2, "--evaluate-every", 2, "--json", "history.json")
    code, out, _ = run(*SIMULATE, *words)
    chosen, first, second, total = out.splitlines()
    assert chosen.startswith("auto: ")
    assert code == 0
    assert "device accuracy" in first and "device loss" in first and not first.endswith("evaluated")
    assert second.endswith("evaluated")
    assert total.startswith("1 of 2 rounds committed, 1 evaluated, accuracy ")
    history = json.loads((tmp_path / "history.json").read_bytes())
    assert [r["state"] for r in history["rounds"]] == ["committed", "evaluated"]
    assert all(0 < r["device_examples"] < 600 for r in history["rounds"])
    final, last = history["final"], history["rounds"][1]
    assert [final[key] for key in ("device_loss", "device_accuracy")] == [last["device_loss"], last["device_accuracy"]]
    assert final["accuracy"] == history["rounds"][0]["accuracy"]


def test_history_as_json_and_model_in_a_folder(run, tmp_path):
    raw32 = ("--codec", "raw32", "--downlink", "raw32")
    code, out, _ = run(*SIMULATE, *raw32, "--json", "history.json", "--out", "new/run")
    assert code == 0
    history = json.loads((tmp_path / "history.json").read_bytes())
    wanted = {"round", "reported", "accuracy", "loss", "bytes_up", "bytes_down", "seconds"}
    assert [r["round"] for r in history["rounds"]] == [1, 2]
    for record in history["rounds"]:
        assert wanted <= record.keys()
        assert record["reported"] == 4 and record["seconds"] > 0
        assert 4 * 4 * 650 < record["bytes_up"] < 4 * (4 * 650 + 200), "four updates of 650 float32 and their headers"
        assert record["bytes_down"] > 4 * 4 * 650
        assert record["float32_bytes"] == 4 * 4 * 650
        assert list(record["traffic"]) == record["devices"]
        for way, name in enumerate(("bytes_up", "bytes_down")):
            assert sum(traffic[way] for traffic in record["traffic"].values()) == record[name]
    final, last = history["final"], history["rounds"][-1]
    assert (final["rounds"], final["committed"], final["accuracy"]) == (2, 2, last["accuracy"])
    assert final["bytes_up"] == sum(r["bytes_up"] for r in history["rounds"])

    params = edgefl.load(tmp_path / "new/run/model.onnx").params
    assert final["model_sha256"] == hashlib.sha256(params.astype("<f4").tobytes()).hexdigest()
    lines = (tmp_path / "new/run/history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history["rounds"]
    assert f"2 of 2 rounds committed, accuracy {final['accuracy']:.4f}" in out
    assert re.search(
        r"^round    1     4 reported .* 1\d\.\d\d kB up \(0\.9\dx\)  1\d\.\d\d kB down \(0\.\d\dx\)\n", out
    ), out


def test_folder_that_holds_a_run_is_refused_unless_forced(run, tmp_path):
    words = (*SIMULATE, "--out", "run")
    assert run(*words)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert sorted(before) == ["history.jsonl", "model.onnx", "run.json"]
    code, _, error = run(*words, "--seed", 2)
    assert code == 2
    assert "run already holds a run (history.jsonl, run.json, model.onnx): choose another --out folder, or " in error
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert run(*words, "--force", "--partition", "nonsense")[0] == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before, "it never began"
    assert run(*words, "--seed", 2, "--force")[0] == 0
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert after.keys() == before.keys() and after["model.onnx"] != before["model.onnx"]
    assert after["history.jsonl"].count(b"\n") == 2
    (tmp_path / "run" / "aggregator.toml").write_text("")
    code, _, error = run(*words, "--force")
    assert code == 2 and "holds a run over MQTT" in error


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_the_rounds_until_then(run, tmp_path, monkeypatch, how, exit_code):
    """The second round's line is interrupted: its record is there already, and so is the model."""
    from edgefl.cli import simulate

    def interrupted(record):
        if record.round == 2:
            signal.raise_signal(how)
        return f"round {record.round}"

    monkeypatch.setattr(simulate, "line", interrupted)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    code, _, _ = run(*SIMULATE, "--rounds", 5, "--out", "run")
    signal.signal(signal.SIGINT, former)
    assert code == exit_code
    rounds = [json.loads(text) for text in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [record["round"] for record in rounds] == [1, 2]
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["settings"]["rounds"]["rounds"] == 5
    trained = edgefl.load(tmp_path / "run" / "model.onnx")
    assert trained.plan.num_params == 650


def test_a_compressing_codec_says_how_much_smaller(run):
    out = run(*SIMULATE, "--model", "mlp:64-100-10", "--codec", "ecq", "--downlink", "raw32")[1]
    up, down = re.findall(r"\((\d+|\d\.\d\d)x\)", out.splitlines()[-1])
    assert float(up) > 15 and 0.8 < float(down) <= 1
    assert run(*SIMULATE, "--codec", "ecq", "--error-feedback", "false")[0] == 0
    code, _, err = run(*SIMULATE, "--error-feedback", "perhaps")
    assert code == 2 and "auto" in err


def test_json_on_standard_output_is_all_there_is(run):
    code, out, _ = run(*SIMULATE, "--json", "-")
    assert code == 0 and len(json.loads(out)["rounds"]) == 2


def test_the_same_seed_gives_the_same_model(run):
    sha256 = [json.loads(run(*SIMULATE, "--json", "-", "--seed", s)[1])["final"]["model_sha256"] for s in (1, 1, 2)]
    assert sha256[0] == sha256[1] != sha256[2]


def test_it_ends_at_the_target_accuracy(run):
    history = json.loads(run(*SIMULATE, "--rounds", 50, "--target-accuracy", 0.8, "--json", "-")[1])
    accuracies = [record["accuracy"] for record in history["rounds"]]
    assert len(accuracies) < 50 and max(accuracies[:-1]) < 0.8 <= accuracies[-1]


def test_inspect_for_the_eye_and_as_json(run):
    code, text, _ = run("inspect", "mlp:784-200-10")
    assert code == 0
    assert re.search(r"^params +159,010, of which 159,010 train$", text, re.MULTILINE)
    assert re.search(r"^loss +cross_entropy \(inferred: .+\)$", text, re.MULTILINE)
    code, text, _ = run("inspect", "mlp:784-200-10", "--json")
    found = json.loads(text)
    assert code == 0 and found["num_params"] == 159010 and found["update_bytes_raw32"] == 4 * 159010
    assert [node["op"] for node in found["nodes"]] == ["dense", "relu", "dense"]


# ---- failed: 1


def table(text: str) -> tuple[object, ...]:
    Path("table.csv").write_text(text)
    return (*SIMULATE, "--model", "mlp:2-3", "--data", "csv:table.csv?target=y&kind=classes")


def labelled(label: int) -> tuple[object, ...]:
    """For a model of ten classes."""
    np.savez("data.npz", x_train=np.ones((40, 64), np.float32), y_train=np.full(40, label))
    return option("--data", "npz:data.npz")


FAILED = {
    "missing model": (lambda: ("inspect", "nope.onnx"), r"can't read nope\.onnx: No such file"),
    "not a model": (lambda: (*table("a,y\n1,2\n")[:2], "table.csv", *SIMULATE[3:]), r"table\.csv: not an ONNX file"),
    "missing data": (lambda: option("--data", "csv:nope.csv?target=y"), r"no data at 'nope\.csv': check the path"),
    "no such column": (lambda: table("a,b,Y\n1,2,0\n"), r"table\.csv has no column 'y': known: Y, a, b"),
    "text in a table": (lambda: table("a,b,y\n1,2,0\n3,x,1\n"), r"line 3, column 'b': 'x' is not a finite number"),
    "NaN in a table": (lambda: table("a,b,y\n1,nan,0\n"), r"line 2, column 'b': 'nan' is not a finite number"),
    "label in a table": (lambda: table("a,b,y\n1,2,0.5\n"), r"line 2, column 'y': '0\.5' is not a class label"),
    "too wide": (lambda: option("--model", "mlp:65-10"), r"\b64\b.*\b65\b|\b65\b.*\b64\b"),
    "full disk": (lambda: option("--json", "/dev/full"), r"No space left on device: check the path"),
    "label of no class": (lambda: labelled(10), r"no round was committed, the model is as it was: .* why"),
}


@pytest.mark.parametrize("case", FAILED)
def test_what_fails_ends_with_1_and_one_message(run, case):
    words, message = FAILED[case]
    code, out, err = run(*words())
    assert code == 1, err
    assert re.search(message, err), err
    assert err.count("error: ") == 1 and "Traceback" not in err + out


def test_an_op_that_is_not_trained_is_named_with_its_node(run, shared):
    code, _, err = run("inspect", shared / "models" / "hls4ml_bnn_model_fc_1layer.onnx")
    assert code == 1
    assert "node '/linear/input_quant/export_handler/BipolarQuant' (onnx.brevitas.BipolarQuant)" in err
    assert err.rstrip().endswith("train the float32 model, and quantize the result")


def test_labels_out_of_range_are_named_by_the_devices(run, caplog):
    assert run(*labelled(10))[0] == 1
    assert "label 10" in caplog.text


def test_the_highest_label_is_fine(run):
    assert run(*labelled(9))[0] == 0


# ---- wrong use: 2

WRONG_USE = {
    "no command": ((), "required: COMMAND"),
    "command": (("simulat",), "unknown command 'simulat': did you mean 'simulate'?"),
    "mlp": (("inspect", "mlp:2"), "'mlp:2' names no model"),
    "batch": (("inspect", "mlp:2-2", "--batch", "0"), "'0' is not a whole number of at least 1"),
    "batch's kind": (("inspect", "mlp:2-2", "--batch", "x"), "'x' is not a whole number of at least 1"),
    "largest batch": (("inspect", "mlp:2-2", "--batch", "99999999"), "batch 99999999: use 1 to 2^24"),
    "demo too small": (("demo", "--devices", "2"), "at least 4 devices and 8 rounds"),
    "codec": (option("--codec", "raw23"), "unknown codec 'raw23': did you mean 'raw32'?"),
    "codec's option": (option("--codec", "ecq:max_byte=2"), "no option 'max_byte': did you mean 'max_bytes'?"),
    "codec's option's form": (option("--codec", "ecq:step=2,fast"), "'fast' is not key=value: write ecq:fast=..."),
    "strategy": (option("--strategy", "fedag"), "unknown strategy 'fedag': did you mean 'fedavg'?"),
    "partition": (option("--partition", "shard:2"), "unknown partition 'shard:2': did you mean 'shards'?"),
    "partition's number": (option("--partition", "shards:x"), "give a whole number of at least 1"),
    "transport": (option("--transport", "mqt"), "unknown transport 'mqt': did you mean 'mqtt'?"),
    "transport's rest": (option("--transport", "memory:x"), "unknown transport 'memory:x': did you mean 'memory'?"),
    "fault": (option("--faults", "dropuot:0.1"), "unknown fault 'dropuot': did you mean 'dropout'?"),
    "fault's number": (option("--faults", "dropout:x"), "fault 'dropout:x' wants numbers: write dropout:0.1"),
    "faults over MQTT": ((*option("--transport", "mqtt"), "--faults", "dropout:0.1"), "--faults works on the memory"),
    "data": (option("--data", "digts"), "unknown kind of data 'digts': did you mean 'digits'?"),
    "loss": (option("--loss", "msee"), "unknown loss 'msee': did you mean 'mse'?"),
    "too many devices": (option("--devices", 10**6), "1000000 devices can't share 1438 examples"),
    "devices": (option("--devices", 0), "argument --devices: '0' is not a whole number of at least 1"),
    "rounds": (option("--rounds", "two"), "argument --rounds: 'two' is not a whole number of at least 1"),
    "workers": (option("--workers", -3), "argument --workers: '-3' is not a whole number from 1 to 1024"),
    "seed": (option("--seed", -1), "argument --seed: '-1' is not a whole number from 0 to 4294967295"),
    "deadline": (option("--deadline-s", "nan"), "argument --deadline-s: 'nan' is not a number above 0"),
    "batch size": (option("--batch-size", "ten"), "'ten' is not a whole number from 1 to 16777216 or \"all\""),
    "learning rate": (option("--lr", "nan"), "argument --lr: 'nan' is not a number above 0"),
    "fraction": (option("--fraction", 1.5), "argument --fraction: '1.5' is not a number above 0, at most 1"),
    "setting": (
        option("--set", "train.lrr=1"),
        "--set train.lrr=1: there is no setting 'train.lrr': did you mean 'train.lr'?",
    ),
    "setting's form": (option("--set", "train.lr"), "--set 'train.lr': write section.key=value"),
    "setting's value": (
        option("--set", "rounds.goal=0"),
        "--set rounds.goal=0: '0' is not a whole number of at least 1",
    ),
    "too few devices": (
        option("--devices", 1),
        "1 device can't make the 2 reports that a round needs: set min_reports to 1",
    ),
    "output file": (option("--json", "no/such/f.json"), "can't write no/such/f.json"),
    "output file is a folder": (option("--json", "."), "can't write .: name a file"),
    "output folder": (option("--out", "/dev/null/run"), "can't make /dev/null/run: Not a directory"),
}


@pytest.mark.parametrize("case", WRONG_USE)
def test_wrong_use_ends_with_2_and_says_what_to_do(run, case):
    words, message = WRONG_USE[case]
    code, out, err = run(*words)
    assert code == 2, err
    assert message in err, err
    assert out == "" and "Traceback" not in err


def test_debug_shows_the_traceback(run):
    with pytest.raises(ModelError):
        run("inspect", "nope.onnx", "--debug")


# ---- the daemons


@pytest.fixture(params=DAEMONS)
def daemon(request: pytest.FixtureRequest) -> Daemon:
    return DAEMONS[request.param]


def keys_and_comments(text: str) -> list[str]:
    """The lines of a configuration without its values, and without the marks of keys that are commented out."""
    return [re.sub(r"^(?:# )?(\w+) = .*", r"\1", line) for line in text.splitlines()]


def test_the_shipped_sample_loads_and_is_the_printed_one_filled_in(run, daemon):
    code, printed, _ = run("--print-config", main=daemon.main)
    assert code == 0
    assert keys_and_comments(daemon.sample.read_text()) == keys_and_comments(printed)
    assert files.load(daemon.sample, daemon.schema).mqtt.url.startswith("mqtts://"), "TLS unless it is switched off"


def test_a_sample_is_not_changed_by_set(run, daemon):
    code, out, err = run("--print-config", "--set", "mqtt.keepalive_s=5", main=daemon.main)
    assert (code, out) == (2, "") and "--set changes a configuration file: give --config" in err


def test_the_printed_sample_loads_when_what_is_required_is_filled_in(run, daemon):
    printed = run("--print-config", main=daemon.main)[1]
    Path("filled.toml").write_text(re.sub(r"(\(required\)\n)# ", r"\1", printed))
    filled = files.load("filled.toml", daemon.schema)
    Path("again.toml").write_text(render(filled))
    assert files.load("again.toml", daemon.schema) == filled


def test_a_daemon_names_every_mistake_in_its_configuration_at_once(run, daemon):
    text = daemon.sample.read_text().replace("keepalive_s = 60", "keepaliv_s = 60")
    text = text.replace('protocol = "auto"', "protocol = 5").replace("federation =", "federatoin =")
    Path("bad.toml").write_text(text)
    code, out, err = run("--config", "bad.toml", main=daemon.main)
    assert code == 2 and out == ""
    assert "bad.toml: the top level has no key 'federatoin'; did you mean 'federation'?" in err
    assert "bad.toml: [mqtt] has no key 'keepaliv_s'; did you mean 'keepalive_s'?" in err
    assert "bad.toml: [mqtt] protocol is 5: give " in err and "Traceback" not in err


@pytest.mark.parametrize("setting", ["rounds = 0", "goal = 0", "target_accuracy = 97.0", "min_reports = 0"])
def test_rounds_that_could_not_be_meant_are_wrong_use(run, setting):
    sample = DAEMONS["aggregator"].sample.read_text()
    key = setting.partition(" ")[0]
    text = re.sub(rf"(?m)^(# )?{key} = .*$", setting, sample)
    Path("bad.toml").write_text(text)
    code, _, err = run("--config", "bad.toml", main=aggregator.main)
    assert code == 2 and f"[rounds] {key} is " in err


@pytest.mark.parametrize(("words", "message"), [((), "--config"), (("--config", "nope.toml"), "can't read nope.toml")])
def test_a_daemon_without_a_configuration(run, daemon, words, message):
    code, _, err = run(*words, main=daemon.main)
    assert code == 2 and message in err
