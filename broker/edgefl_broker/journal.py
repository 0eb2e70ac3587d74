"""Journal: a file of all accepted updates, from which the rounds can be replayed bit for bit.

It is for audits and for tests of faults, and off unless `journal` is configured, because a single device's update is
not meant to outlive its round. A round's updates become durable in one transaction, before the round's own commit:
updates that the journal lacks after a crash were never averaged into a model.

`python -m edgefl_broker.replay` is the other half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgefl.codecs import Codec
from edgefl.core.params import params_from_bytes, params_sha256, params_to_bytes
from edgefl.hosting.store import FileGuard, Schema, durable, open_database
from edgefl.strategies import Site, State, Strategy, Update
from edgefl.strategies.base import Training

_SQL = """
CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, before TEXT NOT NULL, sides BLOB NOT NULL DEFAULT x'');
CREATE TABLE IF NOT EXISTS updates (
    round INTEGER NOT NULL, device TEXT NOT NULL, num_examples INTEGER NOT NULL, staleness INTEGER NOT NULL,
    payload BLOB NOT NULL, steps INTEGER NOT NULL DEFAULT 0, loss REAL, claimed INTEGER,
    start_loss REAL, allowed INTEGER
);
CREATE INDEX IF NOT EXISTS updates_by_round ON updates (round);
"""
_ADDED = "".join(
    f"ALTER TABLE updates ADD COLUMN {column};"
    for column in ("steps INTEGER NOT NULL DEFAULT 0", "loss REAL", "claimed INTEGER", "start_loss REAL")
)
_SIDES = "ALTER TABLE rounds ADD COLUMN sides BLOB NOT NULL DEFAULT x'';"
_ALLOWED = "ALTER TABLE updates ADD COLUMN allowed INTEGER;"
_SCHEMA = Schema(4, _SQL, {0: "", 1: _ADDED, 2: _SIDES, 3: _ALLOWED})  # 0: before there were numbers


class Journal:
    """The file, for one thread at a time; raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._db = open_database(path, _SCHEMA, replaceable=False)
        self._guard = FileGuard(path)

    @durable
    def begin(self, round: int, params: np.ndarray, sides: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """Round `round` starts from the global `params`, with the side vectors (P,) as devices decode them; updates of
        an earlier attempt are deleted."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM updates WHERE round >= ?", (round,))
        shown = b"".join(params_to_bytes(vector) for vector in sides.values())
        self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (round, params_sha256(params), shown))

    @durable
    def add(self, round: int, update: Update) -> None:
        values = (
            round, update.device, update.num_examples, update.staleness, update.payload, update.steps, update.loss,
            update.claimed, update.start_loss, update.allowed,
        )  # fmt: skip
        self._db.execute("INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    @durable
    def end(self) -> None:
        """The round is averaged: make all its updates durable."""
        self._guard.check()
        self._db.execute("COMMIT")

    @durable
    def before(self, round: int) -> str | None:
        """SHA-256 of the params that the round started from; None if it was not averaged."""
        row = self._db.execute("SELECT before FROM rounds WHERE round = ?", (round,)).fetchone()
        return row[0] if row else None

    @durable
    def sides(self, round: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The side vectors of the round, (P,) float32 by name."""
        (blob,) = self._db.execute("SELECT sides FROM rounds WHERE round = ?", (round,)).fetchone()
        return dict(zip(names, np.split(params_from_bytes(blob), len(names)), strict=True)) if names else {}

    @durable
    def updates(self, round: int, codec: Codec) -> Iterator[Update]:
        """The accepted updates of the round, in the order in which they came."""
        columns = "device, num_examples, payload, staleness, steps, loss, claimed, start_loss, allowed"
        query = f"SELECT {columns} FROM updates WHERE round = ? ORDER BY rowid"
        for device, num_examples, payload, staleness, *said in self._db.execute(query, (round,)):
            told = dict(zip(("steps", "loss", "claimed", "start_loss", "allowed"), said, strict=True))
            yield Update(device, num_examples, codec, payload, staleness, **told)

    def close(self) -> None:
        self._db.close()


class Recorded(Strategy):
    """A strategy whose accepted updates are written to a journal as they are added."""

    def __init__(self, strategy: Strategy, journal: Journal) -> None:
        self._strategy, self._journal = strategy, journal
        self.name, self.fit = strategy.name, strategy.fit
        self.sides, self.sent_sides, self.local = strategy.sides, strategy.sent_sides, strategy.local
        self._shown: Mapping[str, np.ndarray] = {}
        self._round = 0

    def weigh(self, num_examples: int) -> int:
        return self._strategy.weigh(num_examples)

    def reach(self, num_examples: int) -> float:
        return self._strategy.reach(num_examples)

    def defaults(self, train: Training) -> Mapping[str, Any]:
        return self._strategy.defaults(train)

    def prepare(self, site: Site) -> None:
        self._strategy.prepare(site)

    def state(self) -> State:
        return self._strategy.state()

    def restore(self, state: State) -> None:
        self._strategy.restore(state)

    def broadcast(self) -> Mapping[str, np.ndarray]:
        return self._strategy.broadcast()

    def shown(self, sides: Mapping[str, np.ndarray]) -> None:
        self._strategy.shown(sides)
        self._shown = sides

    def start(self, params: np.ndarray, round: int) -> None:
        self._strategy.start(params, round)
        self._journal.begin(round, params, self._shown)
        self._round = round

    def add(self, update: Update) -> None:
        self._strategy.add(update)
        self._journal.add(self._round, update)

    def finish(self) -> np.ndarray:
        self._journal.end()
        return self._strategy.finish()
