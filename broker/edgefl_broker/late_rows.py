"""LateRows: the late updates in aggregator.db that wait for a round. Part of store.py."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edgefl._core import crc32c
from edgefl.coordinator.events import LateUpdate
from edgefl.hosting.store import durable

log = logging.getLogger("edgefl.aggregator")

# CAST restores each type: a flipped bit can turn a number into a text, even into one that can't be decoded.
_COLUMNS = (
    "CAST(device AS BLOB), CAST(round AS INTEGER), CAST(version AS INTEGER), CAST(codec AS INTEGER), "
    "CAST(blob AS BLOB), CAST(crc AS INTEGER)"
)


class LateRows:
    """The table `late` of an open database."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    @durable
    def save(self, update: LateUpdate) -> None:
        """Store an update, in a transaction that others may share. It is durable once that is committed."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
        row = (update.device, update.round, update.version, update.codec, update.blob)
        self._db.execute("INSERT INTO late VALUES (?, ?, ?, ?, ?, ?)", (*row, _crc(*row)))

    def all(self) -> Iterator[LateUpdate]:
        """The late updates that no commit has removed, one in memory at a time."""
        for (row_id,) in self._numbers():
            if (update := self._read(row_id)) is not None:
                yield update

    @durable
    def _numbers(self) -> list[tuple[int]]:
        return self._db.execute("SELECT rowid FROM late ORDER BY round, device").fetchall()

    @durable
    def _read(self, row_id: int) -> LateUpdate | None:
        """The late update in this row; if it is damaged, None, and the row is deleted."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM late WHERE rowid = ?", (row_id,)).fetchone()
        if found is not None:
            device, *row, crc = found
            name = device.decode(errors="replace")
            if isinstance(row[-1], bytes) and _crc(name, *row) == crc:
                return LateUpdate(name, *row)
        log.error("a late update in %s is damaged: it is left out", self._path)
        self.erase("rowid = ?", (row_id,))
        return None

    def erase(self, where: str, *values: tuple[object, ...]) -> int:
        """Delete late updates, and overwrite them: each is one device's alone. Returns their number."""
        self._db.execute("PRAGMA secure_delete=ON")
        try:
            return self._db.executemany(f"DELETE FROM late WHERE {where}", values).rowcount if values else 0
        finally:
            self._db.execute("PRAGMA secure_delete=OFF")


def _crc(device: str, round: int, version: int, codec: int, blob: bytes) -> int:
    crc: int = crc32c(f"{device} {round} {version} {codec} ".encode() + blob)
    return crc
