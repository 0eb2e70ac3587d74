"""Accepted models as files on a device: whole at any moment, read back at a start, told to the device's programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from brokers import eventually
from edgefl_agent.__main__ import main as agent_main
from edgefl_agent.afterwards import Afterwards
from edgefl_agent.model_check import look
from edgefl_agent.model_config import ModelConfig
from edgefl_agent.model_files import ModelFiles
from edgefl_agent.model_keeper import ModelKeeper

import edgefl
from edgefl.atomic import write_atomically
from edgefl.core.columns import Scaling
from edgefl.core.params import params_sha256, params_to_bytes
from edgefl.core.protobuf import metadata_of, without_stamp
from edgefl.core.skeleton import sha256_of
from edgefl.device.events import KeepModel, KeepSkeleton, NotKept, TrainJob
from edgefl.device.personal import Verdict
from edgefl.errors import ModelError, UsageError
from edgefl.onnx import skeleton, zoo
from edgefl.protocol.manifest import Manifest, SkeletonInfo
from edgefl.protocol.round import Frame, Round
from edgefl.protocol.update_header import PersonalScores
from edgefl.settings import TrainSettings
from edgefl.settings.render import dump

MODEL = edgefl.load(zoo.mlp([4, 8, 3], seed=1))
SKELETON = skeleton.make(MODEL).with_notes({"labels": '["ok","worn","fault"]'}).to_bytes()
MANIFEST = Manifest(
    "digits", "0" * 16, MODEL.plan, TrainSettings(), skeleton=SkeletonInfo(sha256_of(SKELETON), len(SKELETON))
)


def version(number: int) -> KeepModel:
    params = MODEL.params + np.float32(number)
    sha256 = params_sha256(params)
    frames = [Frame(number, sha256[:16], 1, 0)]
    return KeepModel(
        MANIFEST, Round(MANIFEST.id, "open", number + 1, 1, number, sha256, frames, 60.0), params_to_bytes(params)
    )


def config(folder: Path, **changes) -> ModelConfig:
    names = {"file": "model.onnx", "params_file": "params.npy", "plan_file": "plan.json"}
    paths = {name: str(folder / file) for name, file in names.items()}
    return msgspec.structs.replace(ModelConfig(**paths), **changes)


def kept(folder: Path, number: int, **changes) -> ModelFiles:
    """Files of this version."""
    files = ModelFiles(config(folder, **changes), folder)
    files.keep_skeleton(SKELETON)
    files.keep(version(number))
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_the_file_is_the_aggregators_and_says_what_it_is(folder):
    kept(folder, 3)
    data = (folder / "model.onnx").read_bytes()
    assert without_stamp(data) == MODEL.to_bytes(MODEL.params + np.float32(3))
    assert metadata_of(data) == {
        "federation": "digits", "run": "0" * 16, "version": "3", "round": "4", "plan": MODEL.plan.hash,
        "params_sha256": params_sha256(MODEL.params + np.float32(3)), "labels": '["ok","worn","fault"]',
    }  # fmt: skip
    session = onnxruntime.InferenceSession(data)
    assert session.get_modelmeta().custom_metadata_map["edgefl.version"] == "3"
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x})
    ours = edgefl.Trainer(edgefl.Plan.from_bytes((folder / "plan.json").read_bytes())).predict(
        np.load(folder / "params.npy"), x
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_restart_finds_what_is_there(folder):
    kept(folder, 3)
    wanted = ModelFiles(config(folder), folder).wanted()
    params = MODEL.params + np.float32(3)
    assert (wanted.sha256, wanted.params) == (params_sha256(params), params_to_bytes(params))
    assert wanted.skeleton == sha256_of(SKELETON) and wanted.file
    for only in ("file", "params_file"):  # each alone is enough
        others = {name: None for name in ("file", "params_file") if name != only}
        assert ModelFiles(config(folder, **others), folder).wanted().sha256 == params_sha256(params)


@pytest.mark.parametrize("name", ["model.onnx", "params.npy", "model/plan.json", "model/skeleton.bin"])
@pytest.mark.parametrize("harm", ["missing", "cut", "changed", "empty"])
def test_a_file_that_was_harmed_is_fetched_anew(folder, name, harm):
    kept(folder, 3)
    path = folder / name
    data = path.read_bytes()
    middle = len(data) // 2
    other = {
        "missing": None, "cut": data[:middle], "empty": b"",
        "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[harm]  # fmt: skip
    path.unlink() if other is None else path.write_bytes(other)
    wanted = ModelFiles(config(folder), folder).wanted()
    assert wanted.sha256 != params_sha256(MODEL.params + np.float32(3))


@pytest.mark.parametrize(("mode", "bits"), [("umask", 0o600), ("0640", 0o640), ("0644", 0o644)])
def test_permissions_are_the_owners_choice(folder, mode, bits):
    before = os.umask(0o077)
    try:
        kept(folder, 1, mode=mode)
    finally:
        os.umask(before)
    for name in ("model.onnx", "params.npy", "plan.json"):
        assert (folder / name).stat().st_mode & 0o777 == bits
    assert (folder / "model" / "skeleton.bin").stat().st_mode & 0o777 == 0o600


WRITER = """
import sys
from pathlib import Path
import numpy as np
from edgefl_agent.model_config import ModelConfig
from edgefl_agent.model_files import ModelFiles
from edgefl.core.params import params_sha256, params_to_bytes
from edgefl.device.events import KeepModel
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode
from edgefl.protocol.round import Frame, Round
folder = Path(sys.argv[1])
start, manifest = np.load(folder / "start.npy"), decode(Manifest, (folder / "manifest").read_bytes(), 2**16)
names = {"file": "model.onnx", "params_file": "params.npy", "plan_file": "plan.json"}
files = ModelFiles(ModelConfig(**{name: str(folder / file) for name, file in names.items()}), folder)
files.keep_skeleton((folder / "skeleton").read_bytes())
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    number += 1
    params = start + np.float32(number)
    sha256 = params_sha256(params)
    round = Round(manifest.id, "open", 1, 1, number, sha256, [Frame(number, sha256[:16], 1, 0)], 60.0)
    files.keep(KeepModel(manifest, round, params_to_bytes(params)))
"""


def test_a_kill_at_any_moment_leaves_whole_files(folder):
    """A writer replaces the files as fast as it can, and is killed again and again."""
    rng, seen = np.random.default_rng(0), set()
    np.save(folder / "start.npy", MODEL.params)
    (folder / "manifest").write_bytes(MANIFEST.raw)
    (folder / "skeleton").write_bytes(SKELETON)
    for start in range(0, 12_000, 1000):
        command = [sys.executable, "-c", WRITER, str(folder), str(start)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        eventually((folder / "model.onnx").exists)
        time.sleep(rng.uniform(0.05, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        data = (folder / "model.onnx").read_bytes()
        number = int(metadata_of(data)["version"])
        assert without_stamp(data) == MODEL.to_bytes(MODEL.params + np.float32(number))
        seen.add(number)
        assert np.load(folder / "params.npy").shape == MODEL.params.shape
        files = ModelFiles(config(folder), folder)
        files.wanted()
        assert not list(folder.glob(".*.partial"))
    assert len(seen) > 3


def test_a_disk_that_refuses_is_told(folder):
    told = []
    keeper = ModelKeeper(config(folder, file=str(folder / "nowhere" / "model.onnx")), folder, told.append)
    keeper.keep(KeepSkeleton(SKELETON))
    keeper.keep(version(1))
    assert told == [NotKept("the files of its [model] can't be written: No such file or directory")]


def test_a_file_that_can_not_be_made_leaves_nothing_half_written_and_a_link_is_not_followed(tmp_path):
    def pieces():
        yield b"half"
        raise ModelError("no more")

    path, victim = tmp_path / "model.onnx", tmp_path / "agent.db"
    with pytest.raises(ModelError):
        write_atomically(path, pieces())
    assert list(tmp_path.iterdir()) == []
    victim.write_bytes(b"kept")
    (tmp_path / f".model.onnx.{os.getpid()}.partial").symlink_to(victim)
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert victim.read_bytes() == b"kept" and not path.exists()
    write_atomically(path, b"new")  # the link is gone
    assert path.read_bytes() == b"new"


def test_params_that_are_not_the_rounds_are_not_written(folder):
    told = []
    keeper = ModelKeeper(config(folder), folder, told.append)
    keeper.keep(KeepSkeleton(SKELETON))
    model = version(1)
    keeper.keep(KeepModel(MANIFEST, model.round, version(2).params))
    assert len(told) == 1 and not (folder / "model.onnx").exists()


def test_side_vectors_of_the_strategy_are_in_no_file(folder):
    """They lie behind the params in the model as it came, and the round's SHA-256 is that of all of it."""
    manifest = msgspec.structs.replace(MANIFEST, sides=["control"])
    whole = np.concatenate((MODEL.params + 1, MODEL.params))
    sha256 = params_sha256(whole)
    round = msgspec.structs.replace(version(1).round, manifest=manifest.id, model_sha256=sha256)
    kept(folder, 1)
    expected = {name: (folder / name).read_bytes() for name in ("model.onnx", "params.npy")}
    files = ModelFiles(config(folder), folder)
    files.keep(KeepModel(manifest, round, params_to_bytes(whole)))
    assert np.array_equal(np.load(folder / "params.npy"), MODEL.params + 1)
    assert {name: (folder / name).read_bytes() for name in expected} == expected


def test_a_command_runs_without_a_shell_once_at_a_time(folder):
    script = folder / "told"
    script.write_text('#!/bin/sh\nsleep 0.3\necho "$1" >> "$0.log"\n')
    script.chmod(0o700)
    afterwards = Afterwards(ModelConfig(command=[str(script), "$(id); x"]))
    for _ in range(5):
        afterwards.tell()
    log = folder / "told.log"
    eventually(lambda: log.exists() and len(log.read_text().splitlines()) == 2, 10.0)
    time.sleep(0.5)
    assert log.read_text() == "$(id); x\n" * 2  # four of the five came while it ran


def test_a_command_that_hangs_is_killed(folder, caplog):
    Afterwards(ModelConfig(command=["/bin/sleep", "60"], command_s=0.2)).tell()
    eventually(lambda: "has not ended within 0.2 s" in caplog.text, 10.0)


def test_a_signal_goes_to_the_process_of_a_pid_file(folder, caplog):
    pid_file = folder / "pid"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        pid_file.write_text(f"{process.pid}\n")
        Afterwards(ModelConfig(pid_file=str(pid_file), signal="TERM")).tell()
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
    for text in ("0", "1", "-5", "", "x", "9" * 40):
        caplog.clear()
        pid_file.write_text(text)
        Afterwards(ModelConfig(pid_file=str(pid_file))).tell()
        assert "has no number of a process" in caplog.text
    pid_file.unlink()
    Afterwards(ModelConfig(pid_file=str(pid_file))).tell()
    assert "No such file" in caplog.text


@pytest.mark.parametrize("wrong", [{"file": None, "params_file": None}, {"file": "model.onnx"}, {"plan_file": "a"}])
def test_mistakes_in_the_section(folder, wrong):
    with pytest.raises(UsageError):
        ModelFiles(config(folder, **wrong), folder)


# edgefl-agent --check


def told(changed: ModelConfig, manifest=MANIFEST) -> list[tuple[str, str]]:
    return [(finding.state, finding.text) for finding in look(changed, manifest)]


def test_the_check_looks_at_folders_program_and_skeleton(folder):
    assert told(ModelConfig()) == []
    ((state, text),) = told(config(folder, command=["/bin/true"]))
    assert state == "ok" and str(folder / "model.onnx") in text
    nowhere = config(folder / "nowhere", command=["/no/such"])
    assert [state for state, _ in told(nowhere)] == ["problem", "problem"]
    without = msgspec.structs.replace(MANIFEST, skeleton=None)
    assert [state for state, _ in told(config(folder), without)] == ["warning", "ok"]
    assert [state for state, _ in told(config(folder, file=None), without)] == ["ok"]


# edgefl-agent predict


def agent_toml(folder: Path, **model) -> Path:
    table = {
        "federation": "digits", "device_id": "pi", "state_dir": str(folder), "mqtt": {"url": "mqtt://localhost"},
        "data": {"source": "none"}, "model": {"file": str(folder / "model.onnx"), **model},
    }  # fmt: skip
    (folder / "agent.toml").write_text(dump(table))
    return folder / "agent.toml"


def test_predict_from_the_configuration_and_from_files(folder, capsys):
    kept(folder, 2)
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    np.savez(folder / "x.npz", x=x, y=np.zeros(300, np.int64))
    expected = edgefl.Trainer(MODEL.plan, batch=256).predict(MODEL.params + np.float32(2), x)
    words = ["predict", "--data", f"npz:{folder / 'x.npz'}"]
    assert agent_main([*words, "--config", str(agent_toml(folder))]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "row,prediction,output0,output1,output2" and len(lines) == 300
    found = np.array([line.split(",")[2:] for line in lines], np.float32)
    assert found.tobytes() == expected.tobytes()  # nine digits are all of a float32
    names = ["ok", "worn", "fault"]
    assert [line.split(",")[1] for line in lines] == [names[i] for i in expected.argmax(1)]
    given = ["--plan", str(folder / "plan.json"), "--params", str(folder / "params.npy"), "--json"]
    assert agent_main([*words, *given]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[7]["row"] == 7 and rows[7]["prediction"] == int(expected[7].argmax())
    assert np.array([row["outputs"] for row in rows], np.float32).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("a,b,c,d\n{}", "target=state&labels=ok,worn,fault"),
        ("a,b,state,c,d\n{}", "target=state&labels=*&test=0.5"),
        ("a,b,state,c,d\n{}", "target=state&target_mean=1&target_std=2"),
        ("d,c,state,b,a\n{}", "features=a,b,c,d"),
    ],
    ids=["no column of targets", "blank targets", "numbers to predict", "no target in the SPEC"],
)
def test_predict_needs_no_targets(folder, capsys, table, options):
    kept(folder, 2)
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    head = table.splitlines()[0].split(",")
    rows = [",".join("" if name == "state" else str(row["abcd".index(name)]) for name in head) for row in x]
    (folder / "today.csv").write_text(table.format("\n".join(rows) + "\n"))
    words = ["predict", "--data", f"csv:{folder / 'today.csv'}?{options}", "--config", str(agent_toml(folder))]
    assert agent_main(words) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    expected = edgefl.Trainer(MODEL.plan).predict(MODEL.params + np.float32(2), x)
    assert np.array([line.split(",")[2:] for line in lines], np.float32).tobytes() == expected.tobytes()
    assert [line.split(",")[1] for line in lines] == [["ok", "worn", "fault"][i] for i in expected.argmax(1)]


def test_predict_from_arrays_without_targets_and_says_what_it_leaves_out(folder, caplog):
    kept(folder, 2)
    x = np.zeros((5, 4), np.float32)
    x[3, 1] = np.inf
    np.savez(folder / "x.npz", x=x)
    (folder / "days").mkdir()
    np.savez(folder / "days" / "1.npz", x=x)
    for spec in (f"npz:{folder / 'x.npz'}", f"folder:{folder / 'days'}"):
        caplog.clear()
        assert agent_main(["predict", "--data", spec, "--config", str(agent_toml(folder))]) == 0
        assert "1 of 5 rows can't be understood and are left out" in caplog.text


def test_predict_fills_blanks_with_the_means_of_the_fleet(folder, capsys):
    model = edgefl.load(zoo.mlp([2, 3], seed=1), standardize=True)
    scaling = Scaling.of(model.plan)
    params = scaling.into(model.params, np.array([10.0, 20.0]), np.array([1.0, 0.5]))
    (folder / "plan.json").write_bytes(model.plan.to_bytes())
    np.save(folder / "params.npy", params)
    (folder / "a.csv").write_text("a,b\n1,\n")  # this table has no mean of b
    files = ["--plan", str(folder / "plan.json"), "--params", str(folder / "params.npy")]
    assert agent_main(["predict", "--data", f"csv:{folder / 'a.csv'}?missing=mean", *files]) == 0
    found = capsys.readouterr().out.splitlines()[1].split(",")[2:]
    expected = edgefl.Trainer(model.plan).predict(params, np.array([[1.0, 20.0]], np.float32))
    assert np.array(found, np.float32).tobytes() == expected.tobytes()


def test_names_of_classes_that_would_steer_a_terminal_are_not_shown(folder):
    assert kept(folder, 2).labels() == ("ok", "worn", "fault")
    notes = {"labels": '["ok","worn","\\u001b[2J"]'}
    files = ModelFiles(config(folder), folder)
    files.keep_skeleton(skeleton.make(MODEL).with_notes(notes).to_bytes())
    assert files.labels() == ()


def test_predict_says_what_is_missing(folder, capsys):
    np.savez(folder / "x.npz", x=np.zeros((1, 4), np.float32), y=np.zeros(1, np.int64))
    words = ["predict", "--data", f"npz:{folder / 'x.npz'}"]
    assert agent_main([*words, "--config", str(agent_toml(folder))]) == 1
    assert "there is no model yet" in capsys.readouterr().err
    assert agent_main([*words, "--plan", "x"]) == 2
    kept(folder, 2)
    assert agent_main([*words, "--plan", str(folder / "plan.json"), "--params", str(folder / "x.npz")]) == 2
    assert "67 float32 numbers" in capsys.readouterr().err
    without = folder / "plain.toml"
    without.write_text(dump(msgspec.toml.decode(agent_toml(folder).read_bytes()) | {"model": {}}))
    assert agent_main([*words, "--config", str(without)]) == 2
    assert "[model] names no file" in capsys.readouterr().err


def own(folder: Path, keeps: bool, **changes) -> tuple[ModelKeeper, TrainJob, Verdict]:
    """A device that keeps its own model, all params 0.5 higher, or the received one."""
    files = config(folder, personal_file=str(folder / "personal.onnx"), **changes)
    keeper, message = ModelKeeper(files, folder, lambda event: None), version(3)
    scores = {"personal": PersonalScores(keeps, 0.25, 0.75)}
    verdict = Verdict(MODEL.params + np.float32(0.5) * keeps, keeps, scores)
    return keeper, TrainJob(MANIFEST, message.round, message.params, 0), verdict


@pytest.mark.parametrize("keeps", [True, False])
def test_the_model_that_a_device_keeps_for_itself_is_a_file_beside_the_others(tmp_path, keeps):
    keeper, job, verdict = own(tmp_path, keeps)
    keeper.keep_own(job, verdict)
    assert not (tmp_path / "personal.onnx").exists()  # the skeleton has not come yet
    keeper.keep(KeepSkeleton(SKELETON))
    keeper.keep(version(3))
    keeper.keep_own(job, verdict)
    blob = (tmp_path / "personal.onnx").read_bytes()
    assert without_stamp(blob) == without_stamp(MODEL.to_bytes(verdict.params))
    found = metadata_of(blob)
    told = {"kept": "own" if keeps else "received", "version": "3", "loss": "0.25", "accuracy": "0.75"}
    assert {name: found[name] for name in told} == told
    assert found["params_sha256"] == params_sha256(verdict.params)
    session = onnxruntime.InferenceSession(blob)
    x = np.ones((1, 4), np.float32)
    output = edgefl.Trainer(MODEL.plan).predict(verdict.params, x)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], output, rtol=1e-5)
    # the other files are the accepted model's, and a start goes on from them
    wanted = ModelFiles(keeper._files.config, tmp_path).wanted()
    assert wanted.sha256 == version(3).round.model_sha256


def test_a_disk_that_refuses_the_personal_file_is_logged_and_training_goes_on(tmp_path, caplog):
    keeper, job, verdict = own(tmp_path, True)
    keeper.keep(KeepSkeleton(SKELETON))
    (tmp_path / "personal.onnx").mkdir()
    keeper.keep_own(job, verdict)
    assert "personal_file can't be written" in caplog.text


def test_a_personal_file_needs_the_other_one(tmp_path):
    with pytest.raises(UsageError, match="personal_file needs file"):
        ModelFiles(config(tmp_path, file=None, personal_file=str(tmp_path / "p.onnx")), tmp_path)
