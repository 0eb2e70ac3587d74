"""The trained model comes back to devices: over mosquitto with keys, certificates and the guard, and without them."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from brokers import eventually
from daemons import Federation, Running, blobs
from edgefl_agent.__main__ import main as agent_main
from keyed_fleet import KeyedFleet

import edgefl
from edgefl.cli.main import main
from edgefl.core.protobuf import metadata_of, without_stamp
from edgefl.machine import Subscribe
from edgefl.protocol.topics import SKELETON_SLOT


def predicted(words: list[str], capsys) -> np.ndarray:
    """(n, outputs) what `edgefl-agent predict` prints."""
    capsys.readouterr()
    assert agent_main(["predict", *words]) == 0
    _, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    return np.array([row[2:] for row in rows], np.float32)


def onnx_predicts(file: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file))
    outputs: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return outputs


def asked_for(agent) -> list[str]:
    """Topics of models that the agent subscribes to from now on."""
    asked: list[str] = []
    subscribe = agent.subscribe

    def noted(action: Subscribe) -> None:
        asked.extend(topic for topic in action.topics if "/model/" in topic)
        subscribe(action)

    agent.subscribe = noted
    return asked


def test_a_fleet_with_keys_gets_its_model_back(tmp_path: Path, capsys) -> None:
    x, y = blobs(100, seed=99)
    np.savez(tmp_path / "test.npz", x_train=x[:1], y_train=y[:1], x_test=x, y_test=y)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    fleet = KeyedFleet(tmp_path)
    fleet.enrol("dev-a", "dev-b", "dev-c")
    told = tmp_path / "told"

    def wishes(name: str) -> list[str]:
        return [f"model.file={fleet.home(name)}/model.onnx", "model.every_s=0", "model.mode=0644"]

    with fleet:
        only = fleet.agent("dev-c", *wishes("dev-c"), "model.only=true")
        trains = fleet.agent("dev-a", *wishes("dev-a"), f'model.command=["/usr/bin/touch", "{told}"]')
        plain = fleet.idle_agent("dev-b")
        plain_asked = asked_for(plain)
        fleet._keep(Running(plain))
        test = f"evaluate.test_data=npz:{tmp_path}/test.npz"
        aggregator = fleet.aggregator("rounds.rounds=4", "downlink.name=raw32", test)
        assert aggregator.join(90.0) and aggregator.error is None
        machine = aggregator.host.machine
        files = {name: fleet.home(name) / "model.onnx" for name in ("dev-a", "dev-c")}
        newest = str(machine.version)
        for file in files.values():
            eventually(lambda file=file: file.exists() and metadata_of(file.read_bytes())["version"] == newest, 20.0)
        eventually(told.exists)
        records = fleet.records()
        assert {device for record in records for device in record.devices} == {"dev-a", "dev-b"}
        assert machine.presence.statuses["dev-c"].state == "paused"
        assert plain_asked and not [topic for topic in plain_asked if f"/{SKELETON_SLOT}/" in topic]

        # The file is the model as devices decode it, and says so.
        model, shown = edgefl.load(tmp_path / "start.onnx"), machine.announcer.downlink.shown
        for file in files.values():
            data = file.read_bytes()
            assert without_stamp(data) == model.to_bytes(shown) and file.stat().st_mode & 0o777 == 0o644
            found = metadata_of(data)
            assert found["params_sha256"] == machine.announcer.downlink.sha256
            assert found["accuracy"] == str(records[-1].accuracy)
            assert (found["federation"], found["plan"]) == (machine.announcer.manifest.federation, model.plan.hash)

        # onnxruntime, the core on the device, and the aggregator's own file say the same.
        theirs = onnx_predicts(files["dev-a"], x)
        config = fleet.home("dev-a") / "agent.toml"
        sets = [f"state_dir={fleet.home('dev-a')}/state", *wishes("dev-a")]
        words = ["--config", str(config), *(word for text in sets for word in ("--set", text))]
        ours = predicted([*words, "--data", f"npz:{tmp_path}/x.npz"], capsys)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        aggregators = tmp_path / "state" / "model.onnx"
        assert without_stamp(aggregators.read_bytes()) == without_stamp(files["dev-a"].read_bytes())
        assert onnx_predicts(aggregators, x).tobytes() == theirs.tobytes()
        best = metadata_of((tmp_path / "state" / "best.onnx").read_bytes())
        assert float(best["accuracy"]) == max(record.accuracy or 0.0 for record in records)

        # After a restart nothing comes twice, neither to the one that only takes models nor to the other.
        for name, more, running in (("dev-c", ["model.only=true"], only), ("dev-a", [], trains)):
            running.stop()
            before = files[name].stat()
            agent = fleet.idle_agent(name, *wishes(name), *more)
            asked = asked_for(agent)
            again = fleet._keep(Running(agent))
            eventually(lambda agent=agent: agent.machine.round is not None and agent.machine.terms is not None, 20.0)
            again.stop()
            assert asked == [] and files[name].stat().st_ino == before.st_ino


@pytest.mark.parametrize("downlink", ["raw32", "ecq"])
def test_the_file_is_the_model_as_devices_decode_it(broker_url: str, tmp_path: Path, downlink: str) -> None:
    """Without loss on the way it is the aggregator's very file."""
    fleet = Federation(tmp_path, broker_url, f"model-{os.getpid()}")
    try:
        file, params = tmp_path / "model.onnx", tmp_path / "params.npy"
        wishes = {"file": str(file), "params_file": str(params), "every_s": 0.0}
        fleet.agent("dev-a", model=wishes)
        fleet.agent("dev-b")
        aggregator = fleet.aggregator(downlink={"name": downlink}, keep_models=10)
        assert aggregator.join(60.0) and aggregator.error is None
        newest = aggregator.host.machine.version
        eventually(lambda: file.exists() and metadata_of(file.read_bytes())["version"] == str(newest), 20.0)
        state = tmp_path / "aggregator"
        shown = aggregator.host.machine.announcer.downlink.shown
        is_exact = shown.tobytes() == aggregator.host.machine.params.tobytes()
        assert is_exact == (downlink == "raw32")
        theirs = without_stamp((state / "model.onnx").read_bytes())
        assert (without_stamp(file.read_bytes()) == theirs) == is_exact
        assert np.load(params).tobytes() == shown.tobytes() == edgefl.load(file).params.tobytes()
        assert main(["download", str(newest), str(tmp_path / "again.onnx"), "--state-dir", str(state)]) == 0
        assert (tmp_path / "again.onnx").read_bytes() == (state / "model.onnx").read_bytes()
    finally:
        fleet.close()
