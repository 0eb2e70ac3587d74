"""examples/plugin: installed by pip, then used from TOML, command line and API, on the aggregator and on agents."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from brokers import eventually
from conftest import ROOT
from daemons import Federation

from edgefl.history_files import read_records
from edgefl.onnx import zoo

CODEC = "example-topk:fraction=0.3"
RUN = ["--model", "mlp:16-8-3", "--data", "waves:200", "--partition", "ramp:2", "--devices", "4", "--rounds", "3"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the example into."""
    base = tmp_path_factory.mktemp("plugin")
    shutil.copytree(ROOT / "examples" / "plugin", base / "source")
    words = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", base / "site", base / "source"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return base / "site"


def environment(*folders: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}


def edgefl(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgefl", "simulate", *words]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=120)


def test_its_own_tests_pass_against_what_pip_installed(site: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    tests = ROOT / "examples" / "plugin" / "tests"
    words = [*command, "--rootdir", str(tests), str(tests)]
    done = subprocess.run(words, env=environment(site), capture_output=True, text=True, timeout=120, cwd=site)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_command_line_knows_all_four_parts(site: Path, tmp_path: Path) -> None:
    words = [*RUN, "--strategy", "example-median", "--codec", CODEC, "--json", str(tmp_path / "h.json")]
    done = edgefl(words, site)
    assert done.returncode == 0, done.stderr
    rounds = json.loads((tmp_path / "h.json").read_text())["rounds"]
    assert [len(record["devices"]) for record in rounds] == [4, 4, 4]
    plain = edgefl([*RUN, "--codec", "raw32", "--json", str(tmp_path / "plain.json")], site)
    assert plain.returncode == 0, plain.stderr
    up = [
        sum(r["bytes_up"] for r in json.loads((tmp_path / n).read_text())["rounds"]) for n in ("h.json", "plain.json")
    ]
    assert up[0] < 0.8 * up[1]


def test_without_the_package_each_part_is_named(tmp_path: Path) -> None:
    own = ["--strategy", "example-median"]
    for words in (["--data", "waves:200"], ["--partition", "ramp"], own, ["--codec", CODEC]):
        given = {"--model": "mlp:64-10", "--data": "digits", "--devices": "4", "--rounds": "1", words[0]: words[1]}
        done = edgefl([word for pair in given.items() for word in pair], tmp_path)
        assert done.returncode == 2 and "unknown" in done.stderr and words[1].split(":")[0] in done.stderr, done.stderr


def test_a_fleet_of_processes_runs_it_from_the_command_line(site: Path, tmp_path: Path, embedded: object) -> None:
    words = ["--strategy", "example-median", "--codec", CODEC, "--transport", f"mqtt:{embedded.url}"]  # type: ignore[attr-defined]
    done = edgefl([*RUN, *words, "--workers", "2", "--out", str(tmp_path / "run")], site)
    assert done.returncode == 0, done.stderr
    assert [record.reported for record in read_records(tmp_path / "run" / "state" / "history.jsonl")] == [4, 4, 4]


class Daemons:
    """An aggregator and agents as processes, from TOML files."""

    def __init__(self, folder: Path, url: str, *path: Path) -> None:
        self.folder, self.files = folder, Federation(folder, url, "plugged")
        (folder / "start.onnx").write_bytes(zoo.mlp([16, 8, 3], seed=1).SerializeToString())
        self._environment, self._running = environment(*path), []

    def start(self, module: str, file: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, "--config", str(file)]
        with open(self.folder / f"{file.parent.name}-{module}.log", "w") as log:
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, text=True)
        self._running.append(process)
        return process

    def agent(self, device: str, **tables: Any) -> subprocess.Popen[str]:
        seed = sum(device.encode())
        return self.start("edgefl_agent", self.files.write_agent(device, f"waves:60?seed={seed}", **tables))

    def aggregator(self, **tables: Any) -> subprocess.Popen[str]:
        rounds = {"rounds": 2, "deadline_s": 20.0, "min_reports": 2, "expect": 2}
        return self.start("edgefl_broker", self.files.write_aggregator(rounds=rounds, evaluate={}, **tables))

    def log(self, name: str) -> str:
        return (self.folder / name).read_text()

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


def test_toml_on_the_aggregator_and_on_agents(site: Path, tmp_path: Path, embedded: object) -> None:
    fleet = Daemons(tmp_path, embedded.url, site)  # type: ignore[attr-defined]
    try:
        for device in ("dev-a", "dev-b"):
            fleet.agent(device)
        codec = {"name": "example-topk:fraction=0.3"}
        assert fleet.aggregator(strategy={"name": "example-median"}, codec=codec).wait(60) == 0
    finally:
        fleet.stop()
    records = read_records(tmp_path / "aggregator" / "history.jsonl")
    assert [(record.state, record.devices) for record in records] == [("committed", ["dev-a", "dev-b"])] * 2


def test_a_class_that_is_not_installed_must_be_listed_by_each_device(
    site: Path, tmp_path: Path, embedded: object
) -> None:
    """The operator writes module:Class; the manifest says the codec's name, and a device runs what its owner lists."""
    (tmp_path / "code").mkdir()
    shutil.copytree(site / "edgefl_example", tmp_path / "code" / "edgefl_example")  # no entry points
    fleet = Daemons(tmp_path, embedded.url, tmp_path / "code")  # type: ignore[attr-defined]
    source = {"source": "edgefl_example.mine:waves"}
    (tmp_path / "code" / "edgefl_example" / "mine.py").write_text(
        "from .source import read\ndef waves(): return read('60', {})\n"
    )
    try:
        for device in ("dev-a", "dev-b"):
            fleet.agent(device, data=source, plugins={"codecs": ["edgefl_example.codec:TopK"]})
        fleet.agent("dev-c", data=source)
        codec = {"name": "edgefl_example.codec:TopK:fraction=0.3"}
        aggregator = fleet.aggregator(strategy={"name": "edgefl_example.strategy:median"}, codec=codec)
        eventually(lambda: "example-topk" in fleet.log("dev-c-edgefl_agent.log"), 30.0)
        assert aggregator.wait(60) == 0
    finally:
        fleet.stop()
    records = read_records(tmp_path / "aggregator" / "history.jsonl")
    assert [record.devices for record in records] == [["dev-a", "dev-b"]] * 2
    refused = fleet.log("dev-c-edgefl_agent.log")
    assert "unknown codec 'example-topk'" in refused and "[plugins]" in refused
