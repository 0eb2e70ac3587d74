"""A federation as `edgefl keys` sets it up, whole: mosquitto with TLS and the guard, aggregator and agents in threads.

The running broker and aggregator use the files in the operator's folder itself, so a command of `edgefl keys` acts as
if its files had been copied.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
from brokers import Mosquitto, eventually, free_port
from daemons import Running, blobs
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent
from enrolled import made, served, unpack
from guarded import guard_plugin

from edgefl.history_files import read_records
from edgefl.history_record import RoundRecord
from edgefl.hosting.config import AggregatorConfig
from edgefl.keys import enrolment
from edgefl.keys.enrolment import Terms
from edgefl.machine import Stop
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.protocol.approval import id_of
from edgefl.settings import files


class KeyedFleet:
    """A context manager: the broker runs within it, and all daemons that were started are stopped at its end."""

    def __init__(self, folder: Path, *, guard: bool = True, name: str = "f") -> None:
        self.folder, self.keys = folder, folder / "keys"
        self.port = free_port()
        made(self.keys, guard=guard_plugin() if guard else None, port=self.port, federation=name)
        (folder / "start.onnx").write_bytes(zoo.mlp([4, 8, 3], seed=1).SerializeToString())
        self._plan = id_of(load(folder / "start.onnx").plan)
        self._running: list[Running] = []

    def __enter__(self) -> KeyedFleet:
        self.broker = Mosquitto(served(self.keys))
        eventually(self._listens, 10.0)
        return self

    def _listens(self) -> bool:
        """Whether the broker listens where daemons connect: it opens its own listener first."""
        try:
            socket.create_connection(("localhost", self.port), timeout=0.5).close()
        except OSError:
            return False
        return True

    def __exit__(self, *exc: object) -> None:
        for running in self._running:
            running.host.post(Stop())
        for running in self._running:
            running.join(10.0)
        self.broker.__exit__()

    def reload(self) -> None:
        """What `systemctl reload mosquitto` does."""
        os.kill(self.broker.pid, signal.SIGHUP)

    def enrol(self, *names: str, **terms: Any) -> None:
        """Enrol these devices, with 60 examples each and the plan pinned, and unpack their bundles at home."""
        source = f"npz:{self.folder}/{{name}}.npz"
        plans = {"plans": "pinned", "approved": [self._plan]}
        for bundle in enrolment.add(self.keys, names, Terms(source, plans, **terms)):
            x, y = blobs(60, seed=sum(bundle.stem.encode()))
            np.savez(self.folder / f"{bundle.stem}.npz", x=x, y=y)
            unpack(bundle, self.home(bundle.stem))

    def home(self, name: str) -> Path:
        return self.folder / name

    def agent(self, name: str, *sets: str) -> Running:
        """The agent of an unpacked bundle."""
        return self._keep(Running(self.idle_agent(name, *sets)))

    def idle_agent(self, name: str, *sets: str) -> Agent:
        """The same, before it runs."""
        usual = [f"state_dir={self.home(name) / 'state'}", "mqtt.reconnect_cap_s=0.3"]
        return Agent(files.load(self.home(name) / "agent.toml", AgentConfig, [*usual, *sets]))

    def aggregator(self, *sets: str, take_over: bool = False) -> Running:
        """The aggregator, with rounds that follow each other at once unless `sets` says otherwise."""
        usual = [
            f"model={self.folder}/start.onnx", f"state_dir={self.folder}/state", "rounds.interval_s=0",
            "rounds.deadline_s=10", "rounds.min_reports=2", "mqtt.reconnect_cap_s=0.3",
        ]  # fmt: skip
        config = files.load(self.keys / "aggregator" / "aggregator.toml", AggregatorConfig, [*usual, *sets])
        return self._keep(Running(Aggregator(config, Silent(), take_over)))

    def records(self) -> list[RoundRecord]:
        path = self.folder / "state" / "history.jsonl"
        return read_records(path) if path.exists() else []

    def wait(self, rounds: int, patience_s: float = 60.0) -> list[RoundRecord]:
        """The records, as soon as there are so many rounds."""
        eventually(lambda: len(self.records()) >= rounds, patience_s)
        return self.records()

    def _keep(self, running: Running) -> Running:
        self._running.append(running)
        return running
