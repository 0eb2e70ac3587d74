"""Meta: the sealed texts in aggregator.db, each under a key of its own. Part of store.py."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edgefl.errors import StoreError
from edgefl.hosting.store import seal, unseal

HEX = set(b"0123456789abcdef")  # values that are older than seals have no other characters


class Meta:
    """The table `meta` of an open database. Every write is in the transaction that is open, or in one of its own."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def is_empty(self) -> bool:
        return self._db.execute("SELECT 1 FROM meta").fetchone() is None

    def has(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM meta WHERE key = ?", (key,)).fetchone() is not None

    def get(self, key: str, default: str) -> str:
        """The text under `key`, which is `default` from now on if there was none; StoreError if it is damaged."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            self.put(key, default)
            return default
        value = unseal(row[0]) if isinstance(row[0], str) else None  # a flipped bit may have made it a blob
        if not value or (value.decode() == row[0] and not set(value) <= HEX):
            raise self.damaged(key)
        return value.decode()

    def number(self, key: str) -> int:
        """The number under `key`, 0 without one; StoreError if it is damaged."""
        value = self.get(key, "0")
        if not value.isdecimal():
            raise self.damaged(key)
        return int(value)

    def bytes(self, key: str) -> bytes | None:
        """What is under `key`, as it was put; b"" if it is damaged, None if there is nothing."""
        row = self._db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else unseal(row[0].decode(errors="replace")) or b""

    def put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, seal(value.encode()).decode()))

    def damaged(self, key: str) -> StoreError:
        return StoreError(f"{self._path} is damaged ({key}): put a backup in its place")
