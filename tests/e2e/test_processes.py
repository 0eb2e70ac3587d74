"""Commands that start processes: what they leave behind when they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually, running

from edgefl.data import Dataset
from edgefl.errors import TransportError, UsageError
from edgefl.history import Run
from edgefl.history_files import read_records
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.simulation.demo import run_demo
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet


def daemons_of(folder: Path) -> list[int]:
    """Ids of the processes whose command line names a file in `folder`, but for `edgefl` itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and running(int(entry.name)):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(os.fsencode(folder) + b"/") for word in words):
                found.append(int(entry.name))
    return found


def _hear_interrupts() -> None:
    """Tests that run in the background of a shell have inherited that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_simulation_leaves_no_process_behind(tmp_path: Path, embedded: object, how: signal.Signals) -> None:
    words = ["simulate", "--model", "mlp:64-10", "--data", "digits", "--devices", "3", "--rounds", "100000"]
    command = [sys.executable, "-m", "edgefl", *words, "--transport", "mqtt", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_hear_interrupts
    )
    try:
        history = tmp_path / "run" / "state" / "history.jsonl"
        eventually(lambda: history.exists() and history.stat().st_size, 60.0)
        assert len(daemons_of(tmp_path / "run")) >= 2
        process.send_signal(how)
        assert process.wait(20.0) in (130, 143)
        assert daemons_of(tmp_path / "run") == []
        assert len(read_records(tmp_path / "run" / "history.jsonl")) == len(read_records(history)) > 0
        assert Run.read(tmp_path / "run" / "run.json") is not None
        assert load(tmp_path / "run" / "model.onnx").plan.num_params == 650
    finally:
        process.kill()
        for left in daemons_of(tmp_path / "run"):
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize(("devices", "start_s"), [(4, 0.0), (5, 0.0), (4, 4.0)])
def test_the_smallest_demos_see_the_device_that_came_back_report(
    tmp_path: Path, embedded: object, monkeypatch: pytest.MonkeyPatch, devices: int, start_s: float
) -> None:
    """Also where an agent takes `start_s` longer to start: all eight rounds are over by then."""
    pytest.importorskip("matplotlib")
    start, started = ProcessFleet.start, Counter[str]()

    def slowly(fleet: ProcessFleet, name: str) -> None:
        started[name] += 1
        if started[name] > 1 and name != AGGREGATOR:
            threading.Timer(start_s, start, [fleet, name]).start()
        else:
            start(fleet, name)

    monkeypatch.setattr(ProcessFleet, "start", slowly)
    said: list[str] = []
    history = run_demo(tmp_path / "run", devices, 8, 0, said.append)
    assert started["dev-2"] == 2
    rounds = history.final.rounds
    assert rounds == history.final.committed and rounds in ((9,) if start_s else (8, 9))
    assert (rounds == 9) == any("one more round, which waits for dev-2" in line for line in said)
    assert any("lose power" in line for line in said)
    reports = ["dev-2" in record.devices for record in history.rounds]
    assert all(reports[:4]) and False in reports[4:] and reports[-1]


def test_a_fleet_that_is_interrupted_while_it_starts_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(device: str) -> None:
        raise KeyboardInterrupt

    data = Dataset(np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
    model = zoo.mlp([2, 2]).SerializeToString()
    fleet = ProcessFleet(tmp_path / "run", "mqtt://127.0.0.1", model, data, [np.arange(4)], settings={})
    monkeypatch.setattr(fleet, "start", interrupt)
    with pytest.raises(KeyboardInterrupt), fleet:
        pass
    assert daemons_of(tmp_path / "run") == []


def test_two_runs_on_one_broker_do_not_meet(tmp_path: Path, embedded: object) -> None:
    data = Dataset(np.eye(4, 2, dtype=np.float32), np.array([0, 1, 0, 1]))
    model, parts = zoo.mlp([2, 2]).SerializeToString(), [np.arange(2), np.arange(2, 4)]
    settings = {"loss": "cross_entropy", "rounds": {"rounds": 3, "deadline_s": 10.0, "min_reports": 2, "expect": 2}}
    url = embedded.url  # type: ignore[attr-defined]
    fleets = [
        ProcessFleet(tmp_path / run, url, model, data, parts, settings=settings, agents_per_process=2) for run in "ab"
    ]
    with fleets[0], fleets[1]:
        for fleet in fleets:
            fleet.wait(lambda record: None, 30.0)
    for fleet in fleets:
        assert [(r.state, r.reported) for r in fleet.records()] == [("committed", 2)] * 3
        lines = [line for path in fleet.folder.glob("*.log") for line in path.read_text().splitlines()]
        assert not [line for line in lines if "WARNING" in line and "federation is open" not in line], lines


def test_a_folder_of_a_run_that_was_stopped_early_is_refused(tmp_path: Path) -> None:
    data = Dataset(np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
    settings = (tmp_path, "mqtt://127.0.0.1", zoo.mlp([2, 2]).SerializeToString(), data, [np.arange(4)])
    ProcessFleet(*settings, settings={})
    with pytest.raises(UsageError, match="already holds a run"):
        ProcessFleet(*settings, settings={})


@pytest.mark.parametrize(
    ("url", "patience_s", "error"),
    [
        ("mqtt://127.0.0.1:1", 4.0, r"no end after 4 s: .*cannot reach MQTT broker.*; --out DIR"),
        ("x", 30.0, "ended with 2: the MQTT broker"),
    ],
)
def test_a_run_that_does_not_end_shows_the_last_line_of_the_log(
    tmp_path: Path, url: str, patience_s: float, error: str
) -> None:
    data = Dataset(np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
    model, settings = zoo.mlp([2, 2]).SerializeToString(), {"loss": "cross_entropy"}
    fleet = ProcessFleet(tmp_path / "run", url, model, data, [np.arange(4)], settings=settings)
    with fleet, pytest.raises(TransportError, match=error):
        fleet.wait(lambda record: None, patience_s)
