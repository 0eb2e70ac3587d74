"""Raw units on real devices: keys, mosquitto with the guard, an aggregator that is killed in the profile round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
from brokers import eventually
from daemons import Running
from edgefl_agent.ledger import Reader
from edgefl_broker import replay
from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.daemon import HelperDaemon
from enrolled import unpack
from keyed_fleet import KeyedFleet

import edgefl
from edgefl.cli.main import main
from edgefl.core import columns
from edgefl.core.columns import Scaling
from edgefl.core.trainer import Trainer
from edgefl.hosting.config import AggregatorConfig
from edgefl.keys import enrolment
from edgefl.settings import files

NAMES = ("dev-a", "dev-b", "dev-c", "dev-d")  # the owner of the last one lets no statistics leave
UNITS = np.array([1e-3, 1.0, 1e3, 1e6])
CENTRES = np.array([[2, 0, 0, 1], [0, 2, 0, -1], [0, 0, 2, 0]])  # of the classes, in standard deviations


def table(seed: int, n: int = 90, *, shares=(1, 1, 1)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=np.array(shares) / sum(shares))
    x = (CENTRES[y] + rng.normal(size=(n, 4)) * 0.7 + 5) * UNITS
    return x.astype(np.float32), y


def tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each device has mostly one class."""
    shares = ((8, 1, 1), (1, 8, 1), (1, 1, 8), (1, 1, 1))
    return {name: table(seed, shares=each) for seed, (name, each) in enumerate(zip(NAMES, shares, strict=True))}


def enrol(fleet: KeyedFleet, names: tuple[str, ...], *options: str) -> None:
    """As an operator does, with the plan of the model pinned."""
    source, model = f"npz:{fleet.folder}/{{name}}.npz", f"{fleet.folder}/start.onnx"
    terms = ["--data", source, "--model", model, "--loss", "cross_entropy", *options]
    assert main(["keys", "add", str(fleet.keys), *names, *terms]) == 0
    for name in names:
        unpack(fleet.keys / "devices" / f"{name}.tar", fleet.home(name))


def start(fleet: KeyedFleet, **sets: object) -> Running:
    given = {
        "features.standardize": "federated", "features.min_devices": 3, "train.lr": 0.3, "rounds.interval_s": 0.1,
        "rounds.min_reports": 3, "rounds.deadline_s": 20, "journal": fleet.folder / "journal.db",
    } | sets  # fmt: skip
    return fleet.aggregator(*(f"{key}={value}" for key, value in given.items()))


def test_raw_units_with_keys_on_mosquitto(tmp_path: Path, capsys) -> None:
    with KeyedFleet(tmp_path) as fleet:
        for name, (x, y) in tables().items():
            np.savez(fleet.folder / f"{name}.npz", x=x, y=y)
        enrol(fleet, NAMES, "--standardize")
        quiet = fleet.home("dev-d") / "agent.toml"
        quiet.write_text(quiet.read_text().replace("statistics = true\n", ""))
        aggregator = start(fleet, **{"rounds.min_reports": 2})
        first = [fleet.agent("dev-a"), fleet.agent("dev-b")]
        machine = aggregator.host.machine
        eventually(lambda: machine.tally is not None and machine.tally.num_counted == 2)
        aggregator.die()  # two of three have reported
        assert machine.version == 0 and not (fleet.folder / "state" / "profile.json").exists()

        aggregator = start(fleet)
        agents = [*first, fleet.agent("dev-c"), fleet.agent("dev-d")]
        eventually(lambda: aggregator.host.machine.version >= 12, 90.0)
        records = fleet.records()
        profile = next(record for record in records if record.profile)
        assert (profile.state, profile.version, profile.devices) == ("committed", 1, ["dev-a", "dev-b", "dev-c"])
        assert profile.attempt == 2, "it was opened again, and two devices sent what they had saved"
        assert any("dev-d" in record.devices for record in records[1:]), "its owner's refusal cost it no training"

        seen = np.concatenate([tables()[name][0] for name in NAMES[:3]]).astype(np.float64)
        file = (fleet.folder / "state" / "model.onnx").read_bytes()  # rounds go on
        model = edgefl.load(file)
        scaling = Scaling.of(model.plan)
        mean, deviation = model.params[scaling.mean], 1 / model.params[scaling.scale]
        assert (np.abs(mean - seen.mean(0)) < seen.std(0)).all(), "keys bound each device: medians, here"
        assert (deviation > seen.std(0) / 3).all() and (deviation < 3 * seen.std(0)).all()
        x, y = table(99, 600)
        ours = Trainer(model.plan).predict(model.params, x)
        session = onnxruntime.InferenceSession(file)
        assert np.allclose(session.run(None, {model.input_name: x})[0], ours, atol=1e-4)
        assert (ours.argmax(1) == y).mean() > 0.9
        told = json.loads(session.get_modelmeta().custom_metadata_map["edgefl.scaling"])
        assert told == {"columns": 4, "axis": 1, "mean": columns.MEAN, "scale": columns.SCALE}

        for name, agent in zip(NAMES, agents, strict=True):
            agent.stop()
            lines = [line for line in Reader(fleet.home(name) / "state").lines() if line.entry.mode == "profile"]
            assert len(lines) == (name != "dev-d")
            assert all(line.receipt == "counted" and line.entry.num_examples == 90 for line in lines)

        aggregator.stop()
        where = {"model": "start.onnx", "state_dir": "state", "journal": "journal.db"}
        sets = [f"{key}={fleet.folder / name}" for key, name in where.items()]
        config = fleet.keys / "aggregator" / "aggregator.toml"
        replay.run(files.load(config, AggregatorConfig, [*sets, "features.standardize=federated"]))
        assert "is, bit for bit, what" in capsys.readouterr().out

        told = ["profile", "--state-dir", str(fleet.folder / "state"), "--last"]
        assert main(told) == 0 and "version 1 of the model is scaled by this" in capsys.readouterr().out
        assert main([*told, "--json"]) == 0
        text = capsys.readouterr().out
        assert [column["count"] for column in json.loads(text)["columns"]] == [270] * 4
        assert not any(f"{value}" in text for value in seen[:, 3])


def test_an_operator_asks_a_running_aggregator(tmp_path: Path, capsys) -> None:
    with KeyedFleet(tmp_path) as fleet:
        x, y = table(1)
        for name in NAMES[:2]:
            np.savez(fleet.folder / f"{name}.npz", x=(x / UNITS - 5).astype(np.float32), y=y)
        enrol(fleet, NAMES[:2])
        for name in NAMES[:2]:
            theirs = fleet.home(name) / "agent.toml"
            theirs.write_text(theirs.read_text().replace("[policy]\n", "[policy]\nstatistics = true\n"))
        aggregator = start(
            fleet,
            **{"features.standardize": "none", "features.min_devices": 2, "rounds.min_reports": 2, "train.lr": 0.02},
        )
        for name in NAMES[:2]:
            fleet.agent(name)
        eventually(lambda: aggregator.host.machine.version >= 1)
        assert main(["profile", "--state-dir", str(fleet.folder / "state"), "--wait", "60"]) == 0
        told = capsys.readouterr().out
        assert "2 devices with 180 examples" in told and "scaled by this" not in told
        eventually(lambda: any(record.profile and record.state == "evaluated" for record in fleet.records()))
        version = aggregator.host.machine.version
        eventually(lambda: aggregator.host.machine.version > version)


def test_a_masked_profile_with_keys_and_a_helper(tmp_path: Path, capsys, monkeypatch) -> None:
    """The table is that of all devices together, to the digit; the ledger of each has one masked profile."""
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")
    with KeyedFleet(tmp_path) as fleet:
        for name, (x, y) in tables().items():
            np.savez(fleet.folder / f"{name}.npz", x=x, y=y)
        enrol(fleet, NAMES, "--standardize")
        home = fleet.folder / "helper-north"
        home.mkdir()
        unpack(*enrolment.add(fleet.keys, ["north"], role="helper"), home)
        fleet.reload()
        usual = [f"state_dir={home / 'state'}", "mqtt.reconnect_cap_s=0.3", "least.devices=3"]
        fleet._keep(Running(HelperDaemon(files.load(home / "helper.toml", HelperConfig, usual))))
        aggregator = start(
            fleet,
            **{
                "privacy.masked": "true", "privacy.helpers": "north", "privacy.least": 3, "rounds.expect": 4,
                "rounds.min_reports": 4, "privacy.share": 1.0,
            },
        )  # fmt: skip
        for name in NAMES:
            fleet.agent(name, "policy.masked=true", "policy.least_devices=3")
        eventually(lambda: aggregator.host.machine.version >= 2, 90.0)
        profile = next(record for record in fleet.records() if record.profile)
        assert (profile.state, profile.version, profile.devices) == ("committed", 1, list(NAMES))
        assert profile.num_examples == 360 and profile.helped == {"north": 1}
        assert main(["profile", "--state-dir", str(fleet.folder / "state"), "--last"]) == 0
        assert "4 devices with 360 examples; version 1 of the model is scaled by this" in capsys.readouterr().out
        assert main(["profile", "--state-dir", str(fleet.folder / "state"), "--last", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        seen = np.concatenate([tables()[name][0] for name in NAMES]).astype(np.float64)
        assert told["masked"] and [column["count"] for column in told["columns"]] == [360] * 4
        assert np.allclose([column["mean"] for column in told["columns"]], seen.mean(0), rtol=1e-9)
        assert np.allclose([column["deviation"] for column in told["columns"]], seen.std(0), rtol=1e-6)
    entries = [line.entry for line in Reader(fleet.home("dev-a") / "state").lines()]
    assert [entry.mode for entry in entries[:2]] == ["masked profile", "masked"]
    assert all(entry.num_examples == 0 for entry in entries)
