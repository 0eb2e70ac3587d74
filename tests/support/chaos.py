"""A fleet of real processes that are killed while they work, and the verdict on what is left of their rounds."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from brokers import eventually
from daemons import blobs
from edgefl_broker import replay
from edgefl_broker.journal import Journal
from edgefl_broker.store import AggregatorStore

from edgefl.data import Dataset
from edgefl.history_files import NEWEST, HistoryFiles, read_records
from edgefl.history_record import RoundRecord
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx import zoo
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.settings import files
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet
from edgefl.transports.mqtt import LinkEvent, Message, MqttLink, Up

LINK = {"reconnect_cap_s": 0.5, "session_expiry_s": 3600}
ROUNDS = {"deadline_s": 4.0, "min_reports": 2}


class Fleet(ProcessFleet):
    """`devices` agents with data of their own, and an aggregator with a journal, which reaches the broker at `url`.

    The agents go by `agents_url`, where that is another way. Messages have two parts at least.
    """

    def __init__(self, folder: Path, url: str, devices: int = 3, agents_url: str = "", **tables: Any) -> None:
        x, y = blobs(20 * devices, seed=5)
        settings = {
            "mqtt": {"url": url, **LINK},
            "journal": str(folder / "journal.db"),
            "rounds": ROUNDS,
            "codec": {"name": "raw32", "part_bytes": 256},
            "downlink": {"name": "raw32"},
            **tables,
        }
        parts = np.split(np.arange(len(x)), devices)
        model = zoo.mlp([4, 8, 3], seed=1).SerializeToString()
        super().__init__(folder, agents_url or url, model, Dataset(x, y), list(parts), settings=settings, link=LINK)

    @property
    def settings(self) -> AggregatorConfig:
        return files.load(str(self.folder / "aggregator.toml"), AggregatorConfig)

    def check_alive(self) -> None:
        """Nobody has ended on its own account."""
        for name, process in self._processes.items():
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-2000:]

    def kill(self, name: str) -> None:
        self.check_alive()
        super().kill(name)

    def committed(self) -> int:
        return sum(record.state == "committed" for record in self.records())

    def go_on(self, rounds: int, patience_s: float) -> float:
        """Wait until so many more rounds are committed; the seconds that it took."""
        began, wanted = time.monotonic(), self.committed() + rounds
        eventually(lambda: self.committed() >= wanted, patience_s)
        return time.monotonic() - began


class Watcher:
    """Listens to everything that the aggregator announces, as a device would."""

    def __init__(self, url: str, federation: str) -> None:
        self.rounds: list[Round] = []
        self._topic = Topics(federation).round
        self._link = MqttLink(
            url, "watcher", on_event=self._take, rng=random.Random(0), session_expiry_s=0, backoff_cap_s=0.3
        )

    def _take(self, event: LinkEvent) -> None:
        if isinstance(event, Up):
            self._link.subscribe([self._topic])
        elif isinstance(event, Message):
            self.rounds.append(decode(Round, event.payload, RETAINED_LIMIT))

    def __enter__(self) -> Watcher:
        self._link.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._link.stop()


@dataclass
class Killing:
    """Kills by turns, at times that `seed` draws, and starts again whom it has killed."""

    victims: dict[str, tuple[Callable[[], None], Callable[[], None]]]
    seed: int
    pause_s: tuple[float, float] = (0.2, 1.2)
    down_s: tuple[float, float] = (0.0, 0.3)
    done: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def run(self, times: int, until: float = float("inf")) -> None:
        """Kill each victim so many times, in an order of its own; stop at the monotonic time `until`."""
        rng = random.Random(self.seed)
        order = [name for name in self.victims for _ in range(times)]
        rng.shuffle(order)
        for name in order:
            time.sleep(rng.uniform(*self.pause_s))
            if time.monotonic() > until:
                return
            kill, start = self.victims[name]
            kill()
            time.sleep(rng.uniform(*self.down_s))
            start()
            self.done[name] += 1


def victims(fleet: Fleet, broker: Any) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Who can be killed: the aggregator, one agent after the other, and the MQTT broker."""
    turn = {"agent": 0}

    def agent() -> str:
        return fleet.devices[turn["agent"] % len(fleet.devices)]

    def start_agent() -> None:
        fleet.start(agent())
        turn["agent"] += 1

    return {
        "aggregator": (lambda: fleet.kill(AGGREGATOR), lambda: fleet.start(AGGREGATOR)),
        "agent": (lambda: fleet.kill(agent()), start_agent),
        "broker": (broker.kill9, broker.start),
    }


@dataclass(frozen=True)
class Verdict:
    """What is left, once it has been found to be right."""

    rounds: int
    committed: int
    updates: int
    announced: int


def judge(fleet: Fleet, announced: list[Round]) -> Verdict:
    """Of a fleet that has been stopped: the records are one chain, nothing was announced that is not durable, no device
    counted twice in a round, and the newest model is, bit for bit, the replay of the accepted updates."""
    settings = fleet.settings
    store, journal = AggregatorStore(Path(settings.state_dir)), Journal(Path(str(settings.journal)))
    try:
        lines = read_records(Path(settings.state_dir) / NEWEST)
        history = HistoryFiles(Path(settings.state_dir), 1e9)
        history.mend(store.records())
        records = list(history.records())
    finally:
        store.close()
    committed = [r for r in records if r.state == "committed"]
    assert [r.round for r in records] == list(range(1, len(records) + 1))
    assert [r.version for r in committed] == list(range(1, len(committed) + 1)), "I05: versions are one chain"
    assert lines == records[: len(lines)] and len(records) - len(lines) <= 1, "a start mends at most the last line"
    updates = 0
    for record in committed:
        rows = journal._db.execute("SELECT device FROM updates WHERE round = ?", (record.round,)).fetchall()
        assert sorted(row[0] for row in rows) == record.devices, "I01: once each, and only whom the record names"
        updates += len(rows)
    _check_announcements(announced, records, journal)
    journal.close()
    replay.run(settings)  # raises if one bit is off
    return Verdict(len(records), len(committed), updates, len(announced))


def _check_announcements(announced: list[Round], records: list[RoundRecord], journal: Journal) -> None:
    shown = defaultdict(set)
    for message in announced:
        assert message.round <= len(records) + 1, "I09: announced, and not durable"
        shown[message.version].add(message.model_sha256)
    assert all(len(models) == 1 for models in shown.values()), "I05: one version, two models"
    began = {r.version - 1: journal.before(r.round) for r in records if r.state == "committed"}
    for version, models in shown.items():
        assert version not in began or models == {began[version]}, f"I08: version {version} is not the one committed"
