"""Models: the newest models in aggregator.db, each with the strategy's state that belongs to it. Part of store.py."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection
from pathlib import Path

import numpy as np

from edgefl.core.params import params_from_bytes
from edgefl.errors import StoreError
from edgefl.hosting.store import durable
from edgefl.hosting.versions import digest, is_sound

KEPT_MODELS = 3  # at least, however large they are
log = logging.getLogger("edgefl.aggregator")


class Models:
    """The table `models` of an open database. It keeps the last `most`, as far as they take at most `most_bytes`."""

    def __init__(self, db: sqlite3.Connection, path: Path, most: int, most_bytes: float) -> None:
        self._db, self._path = db, path
        self._most, self._most_bytes = most, most_bytes
        self.pinned: set[int] = set()  # versions that are kept beside these: tagged ones

    def keep(self, most: int, most_bytes: float) -> None:
        """Keep so many from the next commit on."""
        self._most, self._most_bytes = most, most_bytes

    @durable
    def newest(self, num_params: int) -> tuple[int, np.ndarray]:
        """Version and params of the newest model; StoreError if it is damaged."""
        query = "SELECT version, sha256, params, state FROM models ORDER BY version DESC"
        version, sha256, blob, state = self._db.execute(query).fetchone()
        if not is_sound(blob, state, sha256, num_params):
            raise StoreError(f"model {version} in {self._path} is damaged")
        return version, params_from_bytes(blob)

    @durable
    def versions(self) -> list[int]:
        """The versions of the models that are kept, in order."""
        return [version for (version,) in self._db.execute("SELECT version FROM models ORDER BY version")]

    @durable
    def get(self, version: int) -> tuple[np.ndarray, bytes] | None:
        """Params and the strategy's packed state of this version; None if it is not kept, or is damaged."""
        if not 0 <= version < 2**63:  # SQLite takes no larger number, and an order may name one
            return None
        query = "SELECT CAST(sha256 AS BLOB), params, state FROM models WHERE version = ?"
        row = self._db.execute(query, (version,)).fetchone()
        if row is None or not isinstance(row[1], bytes):
            return None
        sha256, blob, state = row
        if not is_sound(blob, state, sha256.decode(errors="replace"), len(blob) // 4):
            return None
        return params_from_bytes(blob), state

    def insert(self, version: int, params: bytes, state: bytes) -> None:
        """`state` is the strategy's state after `params`; one SHA-256 covers both."""
        row = (version, digest(params, state), params, state)
        self._db.execute("INSERT INTO models (version, sha256, params, state) VALUES (?, ?, ?, ?)", row)

    def newest_sound(self, num_params: int, known: int) -> tuple[int, np.ndarray, bytes]:
        """Version, params and the strategy's state of the newest model that is not damaged.

        If the newest model is damaged, the one before gets a new version, since no version is ever used twice. `known`
        is the newest version that history.jsonl has.
        """
        columns = "version, CAST(sha256 AS BLOB), params, state"  # a damaged text may not be decodable
        rows = self._db.execute(f"SELECT {columns} FROM models ORDER BY version DESC").fetchall()
        newest = max(known, rows[0][0])
        for version, sha256, blob, state in rows:
            if not is_sound(blob, state, sha256.decode(errors="replace"), num_params):
                log.error("model %d in %s is damaged: going back to the one before", version, self._path)
                continue
            if version != newest:
                version = newest + 1
                self.insert(version, blob, state)
            return version, params_from_bytes(blob), state
        raise StoreError(
            f"no sound model is left in {self._path}: put a backup in its place, or empty the folder to start from the "
            "ONNX file"
        )

    def drop_old(self) -> None:
        """Delete the models that need not be kept any longer."""
        size = "coalesce(length(CAST(params AS BLOB)) + length(CAST(state AS BLOB)), 0)"  # of any type: see store.py
        total = 0
        rows = self._db.execute(f"SELECT version, {size} FROM models ORDER BY version DESC").fetchall()
        rows = [row for row in rows if row[0] not in self.pinned]
        for place, (_, taken) in enumerate(rows):
            total += taken
            if place >= KEPT_MODELS and (place >= self._most or total > self._most_bytes):
                self._db.executemany("DELETE FROM models WHERE version = ?", [row[:1] for row in rows[place:]])
                return

    @durable
    def bytes_of(self, versions: Collection[int]) -> int:
        """How many bytes these take."""
        size = "coalesce(length(CAST(params AS BLOB)) + length(CAST(state AS BLOB)), 0)"
        rows = self._db.execute(f"SELECT version, {size} FROM models").fetchall()
        return sum(taken for version, taken in rows if version in versions)
