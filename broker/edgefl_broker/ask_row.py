"""The set of a masked round that helpers were asked to open, in aggregator.db, until its round is committed."""

from __future__ import annotations

import logging
import sqlite3
import zlib

from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.errors import StoreError

SQL = "CREATE TABLE IF NOT EXISTS ask (round INTEGER PRIMARY KEY, blob BLOB NOT NULL, crc INTEGER NOT NULL);\n"
log = logging.getLogger("edgefl.aggregator")


class AskRow:
    """One row at most. The transactions are the caller's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def save(self, saved: SavedAsk) -> None:
        """In place of any other set."""
        blob = saved.to_bytes()
        self._db.execute("DELETE FROM ask")
        self._db.execute("INSERT INTO ask VALUES (?, ?, ?)", (saved.record.round, blob, zlib.crc32(blob)))

    def load(self) -> SavedAsk | None:
        """The set that was saved; None without one, or if it is damaged. The round then opens again, and helpers refuse
        its set."""
        row = self._db.execute("SELECT blob, crc FROM ask").fetchone()
        if row is None:
            return None
        blob, crc = row
        try:
            if not isinstance(blob, bytes) or zlib.crc32(blob) != crc:
                raise StoreError("the set that helpers were asked for is damaged")
            return SavedAsk.from_bytes(blob)
        except StoreError as error:
            log.error("%s: its round opens again", error)
            return None

    def drop(self, round: int) -> None:
        """The round is committed."""
        self._db.execute("DELETE FROM ask WHERE round <= ?", (round,))
