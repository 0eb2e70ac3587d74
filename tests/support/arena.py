"""A federation with keys in real processes: mosquitto with the generated files and the guard, an aggregator, and five
devices of which one may be hostile (hostile_device.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

import numpy as np
import pytest
from brokers import free_port, require_mosquitto
from guarded import guard_plugin

from edgefl.history_files import read_records
from edgefl.history_record import RoundRecord

DEVICES = tuple(f"pi-{number}" for number in range(1, 6))
HOSTILE = DEVICES[-1]
ROUNDS = 30
DEADLINE_S, EPOCHS = 20, 2  # as `edgefl demo` has them
PATIENCE_S = 400.0
PYTHON = Path(sys.executable)
# Real devices take a while for their data. So rounds last long enough to be compared on a busy machine.
SENSOR = """\
import time
import numpy

def __getattr__(name):
    if not name.startswith("pi-"):
        raise AttributeError(name)
    def read():
        time.sleep(0.5)
        with numpy.load(name + ".npz") as examples:
            return examples["x"], examples["y"]
    return read
"""


@dataclass
class Outcome:
    """What a run came to. Memory is each process's peak in KiB, logs are in bytes."""

    records: list[RoundRecord]
    memory: dict[str, int]
    logs: dict[str, str]

    @property
    def seconds(self) -> list[float]:
        return [record.seconds for record in self.records]

    @property
    def accuracy(self) -> float:
        return self.records[-1].accuracy or 0.0

    @property
    def said(self) -> str:
        """What the aggregator and the guard say of the hostile device."""
        lines = [line for name in ("aggregator", "broker") for line in self.logs[name].splitlines()]
        return "\n".join(line for line in lines if HOSTILE in line)

    def __str__(self) -> str:
        times = f"rounds {median(self.seconds):.2f} s, longest {max(self.seconds):.2f}"
        sizes = ", ".join(f"{name} {len(text) / 1e3:.0f} kB" for name, text in self.logs.items() if name in self.memory)
        memory = ", ".join(f"{name} {kib / 1024:.1f} MiB" for name, kib in self.memory.items())
        return f"{len(self.records)} rounds, accuracy {self.accuracy:.4f}; {times}; memory {memory}; logs {sizes}"


class Arena:
    """One run below `folder`. A context manager, which ends what it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []
        split_digits(folder)
        self._edgefl(
            "keys", "init", "keys", "--federation", "arena", "--broker", "localhost", "--port", str(self.port),
            "--home", str(folder / "keys" / "broker"), "--guard", str(guard_plugin()),
        )  # fmt: skip
        model = ["--model", "start.onnx", "--data", "python:sensor:{name}"]
        self._edgefl("keys", "add", "keys", *DEVICES, *model)
        for name in DEVICES:
            with tarfile.open(folder / "keys" / "devices" / f"{name}.tar") as bundle:
                bundle.extractall(folder / name, filter="data")
        if os.geteuid() == 0:  # mosquitto would drop to a user who may not read this folder
            with open(folder / "keys" / "broker" / "mosquitto.conf", "a") as conf:
                conf.write("user root\n")

    def _edgefl(self, *words: str) -> None:
        done = subprocess.run([PYTHON.parent / "edgefl", *words], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start(self, name: str, *command: str | Path) -> None:
        log = open(self.folder / f"{name}.log", "wb")  # noqa: SIM115
        self._logs.append(log)
        environment = {**os.environ, "EDGEFL_TRUST_CLOCK": "1"}
        self._running[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment
        )

    def run(self, attack: str | None) -> Outcome:
        """Thirty rounds, with an attack of the last device, or with five honest devices."""
        self.start("broker", require_mosquitto(), "-c", self.folder / "keys" / "broker" / "mosquitto.conf")
        self.start(
            "aggregator", PYTHON.parent / "edgefl-aggregator", "--config", "keys/aggregator/aggregator.toml",
            *sets(state_dir=self.folder / "state", model=self.folder / "start.onnx"),
            *sets(**{"rounds.rounds": ROUNDS, "rounds.interval_s": 0, "rounds.expect": len(DEVICES)}),
            *sets(**{"rounds.deadline_s": DEADLINE_S, "train.epochs": EPOCHS}),
            *sets(**{"evaluate.test_data": f"npz:{self.folder}/test.npz"}),
        )  # fmt: skip
        for name in DEVICES:
            if name == HOSTILE and attack is not None:
                script = Path(__file__).with_name("hostile_device.py")
                self.start(name, PYTHON, script, attack, self.folder / name)
            else:
                words = sets(state_dir=self.folder / name / "state")
                self.start(name, PYTHON.parent / "edgefl-agent", "--config", f"{name}/agent.toml", *words)
        return self._outcome()

    def _outcome(self) -> Outcome:
        history, until = self.folder / "state" / "history.jsonl", time.monotonic() + PATIENCE_S
        records: list[RoundRecord] = []
        memory: dict[str, int] = {}
        while len(records) < ROUNDS:
            time.sleep(0.1)
            records = read_records(history)
            alive = [name for name in ("broker", "aggregator") if self._running[name].poll() is None]
            memory |= {name: max(memory.get(name, 0), peak_kib(self._running[name].pid)) for name in alive}
            if (len(alive) < 2 and len(records) < ROUNDS) or time.monotonic() > until:
                pytest.fail(f"{len(records)} rounds, alive: {alive}\n{self.log('aggregator')[-3000:]}")
        return Outcome(records, memory, {name: self.log(name) for name in ("broker", "aggregator", *DEVICES)})

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._logs:
            log.close()


def sets(**values: object) -> list[str]:
    """Options of a daemon."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def peak_kib(pid: int) -> int:
    """The most memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0  # it has just ended


def split_digits(folder: Path) -> None:
    """A fifth of the digits for each device, the usual test set, and a model to begin with."""
    import onnx

    from edgefl import data
    from edgefl.onnx import zoo

    digits = data.load("digits")
    for number, name in enumerate(DEVICES):
        np.savez(folder / f"{name}.npz", x=digits.x_train[number::5], y=digits.y_train[number::5])
    few = digits.x_train[:1], digits.y_train[:1]
    np.savez(folder / "test.npz", x_train=few[0], y_train=few[1], x_test=digits.x_test, y_test=digits.y_test)
    onnx.save(zoo.mlp([64, 50, 10], seed=1, softmax=True), folder / "start.onnx")
    (folder / "sensor.py").write_text(SENSOR)
