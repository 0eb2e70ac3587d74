"""A fleet of operating-system processes: the real aggregator and real agents on a real MQTT broker, on one machine.

Each device has a folder with its own data, configuration and state, as it would on a Pi. The daemons are started
as commands, never imported. Everything lies in one run folder and can be read there afterwards.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset
from ..errors import TransportError, UsageError
from ..history import History, Run
from ..history_files import HistoryFiles, NewRecords
from ..history_record import RoundRecord
from ..private_files import opener
from ..registry import is_reference
from ..settings.render import dump
from ..settings.spec import split

AGGREGATOR = "aggregator"
STOP_S = 10.0
POLL_S = 0.05
QUICK = {"interval_s": 0.0}  # of [rounds], where the settings leave it out
# rumqttd, the embedded broker, sends no retained message to a client that subscribes again in an old session.
LINK: Mapping[str, Any] = {"reconnect_cap_s": 2.0, "session_expiry_s": 0}


class ProcessFleet:
    """A context manager. `settings` are tables and keys of aggregator.toml; `link` has the keys of [mqtt] beside `url`.

    Each run has a federation name and MQTT client ids of its own, so that runs on one broker do not interfere.
    `agents_per_process` lets several agents share a process: a laptop cannot run a hundred interpreters.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        model: bytes,
        data: Dataset,
        parts: Sequence[np.ndarray],
        *,
        settings: Mapping[str, Any],
        agents_per_process: int = 1,
        link: Mapping[str, Any] = LINK,
    ) -> None:
        if (folder / "aggregator.toml").exists():  # also of a run that was stopped before its first round
            raise UsageError(f"{folder} already holds a run: choose another --out folder or remove it")
        self.folder = folder
        width = len(str(len(parts)))
        self.devices = [f"dev-{i:0{width}d}" for i in range(1, len(parts) + 1)]
        self._groups = [
            self.devices[i : i + agents_per_process] for i in range(0, len(self.devices), agents_per_process)
        ]
        self._link = link
        self.environment: dict[str, str] = {}  # of the processes, beside our own
        self._run = secrets.token_hex(3)
        self.federation = f"fleet-{self._run}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._new = NewRecords(self.folder / "state")  # that `wait` has not passed to on_round
        self._write(url, model, data, parts, settings)

    def _write(
        self, url: str, model: bytes, data: Dataset, parts: Sequence[np.ndarray], settings: Mapping[str, Any]
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "start.onnx").write_bytes(model)
        table: dict[str, Any] = {
            "federation": self.federation,
            "model": str(self.folder / "start.onnx"),
            "state_dir": str(self.folder / "state"),
            "mqtt": {"url": url, **self._link},
            **settings,
            "rounds": QUICK | {k: v for k, v in settings.get("rounds", {}).items() if v is not None},
        }
        if data.x_test is not None and data.y_test is not None:
            np.savez(self.folder / "test.npz", x_train=data.x_test[:1], y_train=data.y_test[:1],
                     x_test=data.x_test, y_test=data.y_test)  # fmt: skip
            test_data = {"test_data": f"npz:{self.folder / 'test.npz'}"}
            table["evaluate"] = test_data | {k: v for k, v in settings.get("evaluate", {}).items() if v is not None}
        self._table = table
        _write_private(self.folder / "aggregator.toml", dump(table))
        names = {split(settings.get(section, {}).get("name", ""))[0] for section in ("codec", "downlink")}
        outside = sorted(filter(is_reference, names))
        for device, part in zip(self.devices, parts, strict=True):
            home = self.folder / device
            home.mkdir()
            np.savez(home / "data.npz", x=data.x_train[part], y=data.y_train[part])
            agent = {
                "federation": self.federation,
                "device_id": device,
                "state_dir": str(home),
                "mqtt": {"url": url, "client_id": f"{device}-{self._run}", **self._link},
                "data": {"source": f"npz:{home / 'data.npz'}"},
                "limits": {"nice": 0},
                "plugins": {"codecs": outside},
            }
            _write_private(home / "agent.toml", dump(agent))

    def __enter__(self) -> ProcessFleet:
        try:
            self.start(AGGREGATOR)
            for group in self._groups:
                self.start(group[0])
        except BaseException:  # a signal between two of them
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str) -> None:
        """Start the aggregator, or the process of a device (and of those that share it)."""
        if name == AGGREGATOR:
            json = str(self.folder / "history.json")
            self._spawn(name, "edgefl_broker", "--config", str(self.folder / "aggregator.toml"), "--json", json)
            return
        group = self._group(name)
        options = [word for name in group for word in ("--config", str(self.folder / name / "agent.toml"))]
        self._spawn(group[0], "edgefl_agent", *options)

    def go_on(self, **rounds: Any) -> None:
        """Start the aggregator again after its last round, with these keys of [rounds] changed."""
        self._table["rounds"] = {**self._table["rounds"], **rounds}
        (self.folder / "aggregator.toml").write_text(dump(self._table))
        self.start(AGGREGATOR)

    def kill(self, name: str) -> None:
        """SIGKILL the aggregator, or the process of a device: no last words, as when the power goes."""
        process = self._process(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """SIGTERM: a clean end."""
        process = self._process(name)
        process.terminate()
        process.wait(STOP_S)

    def pid(self, name: str) -> int:
        """The process id of the aggregator, or of the process of a device."""
        return self._process(name).pid

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        return self._processes[name if name == AGGREGATOR else self._group(name)[0]]

    @property
    def model(self) -> Path:
        """The model that the aggregator has trained, once it has started."""
        return self.folder / "state" / "model.onnx"

    def records(self) -> list[RoundRecord]:
        """The rounds that are over."""
        return list(HistoryFiles(self.folder / "state").records())

    def run_record(self) -> Run | None:
        """The run that the aggregator has recorded; None until it has started."""
        return Run.read(self.folder / "state" / "run.json")

    def history(self, params: np.ndarray) -> History:
        """The rounds that have ended, with `params`, the newest model's."""
        return History(params, self.records(), self.run_record())

    def wait(self, on_round: Callable[[RoundRecord], None], timeout_s: float) -> None:
        """Wait until the aggregator has ended, and call `on_round` once for each round.

        TransportError if the aggregator fails or the time is up.
        """
        until = time.monotonic() + timeout_s
        while True:
            code = self._processes[AGGREGATOR].poll()
            for record in self._new:
                on_round(record)
            if code is not None:
                break
            if time.monotonic() > until:
                raise TransportError(f"no end after {timeout_s:.0f} s: {self._last_line()}; --out DIR keeps all logs")
            time.sleep(POLL_S)
        if code != 0:
            raise TransportError(f"the aggregator ended with {code}: {self._last_line()}")

    def _last_line(self) -> str:
        """Of the aggregator's log: a folder for temporary files is gone when an operator reads the error."""
        log = (self.folder / "aggregator.log").read_text().strip().splitlines()
        return log[-1].removeprefix("error: ") if log else "its log is empty"

    def _group(self, device: str) -> list[str]:
        return next(group for group in self._groups if device in group)

    def _command(self, name: str) -> list[str]:
        """What runs Python for the aggregator or a device."""
        return [sys.executable]

    def _spawn(self, name: str, module: str, *options: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **self.environment}
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._command(name), "-m", module, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment,
            )  # fmt: skip


def _write_private(path: Path, text: str) -> None:
    """A configuration: the broker's URL may have a password."""
    with open(path, "w", opener=opener) as file:
        file.write(text)
