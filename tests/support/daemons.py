"""Agents and an aggregator in threads of the test, over a real broker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent

from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.link_host import LinkHost
from edgefl.machine import Stop, Tick
from edgefl.onnx import zoo
from edgefl.settings import files
from edgefl.settings.render import dump

CENTRES = np.random.default_rng(7).normal(0, 4, (3, 4)).astype(np.float32)


def blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes around three centres: x (n, 4) float32, y (n,) labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (CENTRES[y] + rng.normal(0, 0.7, (n, 4))).astype(np.float32), y


class Killed(Exception):
    """What ends a daemon that is to die."""


class Running:
    """A daemon in a thread; `error` is what ended it, if something did."""

    def __init__(self, host: LinkHost) -> None:
        self.host = host
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.host.run()
        except BaseException as error:
            self.error = error

    def join(self, timeout_s: float = 30.0) -> bool:
        """True if it has ended by itself in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """A clean stop, as by SIGTERM."""
        self.host.post(Stop())
        assert self.join(), "the daemon did not stop"

    def die(self) -> None:
        """As near to kill -9 as a thread gets: the connection is cut without a DISCONNECT, nothing more is done."""

        def kill(*_: object) -> None:
            self.host.link.stop(0.0, will=True)
            raise Killed

        self.host._turn = self.host.feed = kill  # type: ignore[method-assign]
        self.host.post(Tick())
        assert self.join() and isinstance(self.error, Killed)


class Federation:
    """One federation's files below `folder`, and its daemons while they run."""

    def __init__(self, folder: Path, url: str, name: str, protocol: str = "5") -> None:
        self.folder, self.name = folder, name
        self._mqtt = {"url": url, "protocol": protocol, "reconnect_cap_s": 0.3, "session_expiry_s": 0}
        self._running: list[Running] = []
        (folder / "start.onnx").write_bytes(zoo.mlp([4, 8, 3], seed=1).SerializeToString())
        x, y = blobs(200, seed=99)
        np.savez(folder / "test.npz", x_train=x[:1], y_train=y[:1], x_test=x, y_test=y)

    def write_aggregator(self, **tables: Any) -> Path:
        table = {
            "federation": self.name,
            "model": str(self.folder / "start.onnx"),
            "state_dir": str(self.folder / "aggregator"),
            "mqtt": self._mqtt,
            "rounds": {"interval_s": 0.0}
            | tables.pop("rounds", {"rounds": 3, "deadline_s": 10.0, "min_reports": 2, "expect": 2}),
            "train": {"epochs": 2, "lr": 0.1},
            "codec": {"name": "raw32"},
            "downlink": {"name": "raw32"},
            "evaluate": {"test_data": f"npz:{self.folder / 'test.npz'}"},
        }
        path = self.folder / "aggregator.toml"
        path.write_text(dump({**table, **tables}))
        return path

    def write_agent(self, device: str, source: str = "", **tables: Any) -> Path:
        home = self.folder / device
        home.mkdir(exist_ok=True)
        if not source:
            x, y = blobs(60, seed=sum(device.encode()))
            np.savez(home / "data.npz", x=x, y=y)
            source = f"npz:{home / 'data.npz'}"
        table = {
            "federation": self.name,
            "device_id": device,
            "state_dir": str(home),
            "mqtt": self._mqtt,
            "data": {"source": source},
        }
        path = home / "agent.toml"
        path.write_text(dump({**table, **tables}))
        return path

    def aggregator(self, **tables: Any) -> Running:
        path = self.write_aggregator(**tables)
        return self._keep(Running(Aggregator(files.load(path, AggregatorConfig), Silent())))

    def agent(self, device: str, source: str = "", **tables: Any) -> Running:
        return self._keep(Running(Agent(files.load(self.write_agent(device, source, **tables), AgentConfig))))

    def _keep(self, running: Running) -> Running:
        self._running.append(running)
        return running

    def close(self) -> None:
        for running in self._running:
            running.host.post(Stop())
        for running in self._running:
            running.join(10.0)
