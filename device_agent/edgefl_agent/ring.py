"""Ring: the newest rows in a SQLite file, bounded in rows and bytes. Pages that old rows leave are used again.

For SD cards: rows are written together, once in a while; SQLite's log is used without waiting for the disk, so a power
cut may lose the newest writes and damages nothing; what is deleted is not overwritten. A reader never waits.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edgefl.errors import StoreError
from edgefl.hosting.store import NO_ERASING, SMALL_CACHE, Schema, open_database
from edgefl.private_files import opener

from .sampler import Cell

SCHEMA = Schema(1, "CREATE TABLE IF NOT EXISTS ring (id INTEGER PRIMARY KEY, time REAL);", {})
MOST_WAITING = 10_000  # rows, while the disk takes none
SPARE = 16  # a sixteenth of the ring goes at once: deleting a few rows with each write would write twice as much
LOG_BYTES = 2**20
log = logging.getLogger("edgefl.agent.record")


class Ring:
    """`columns` are those of a row, after its time. One thread at a time. StoreError if the file can't be used."""

    def __init__(self, path: Path, columns: Sequence[str], max_rows: int, max_bytes: int) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._waiting: deque[list[Cell]] = deque(maxlen=MOST_WAITING)
        self.lost = 0  # rows that the disk has not taken in time
        with suppress(FileExistsError, OSError):  # open_database says what is wrong
            os.close(opener(str(path), os.O_CREAT | os.O_RDWR))
        self._database = open_database(path, SCHEMA, replaceable=True)
        names = self._prepare(path, columns)
        marks = ",".join("?" * (len(names) + 1))
        listed = ",".join(["time", *map(_quoted, names)])
        self._insert = f"INSERT INTO ring ({listed}) VALUES ({marks})"

    def _prepare(self, path: Path, columns: Sequence[str]) -> Sequence[str]:
        """Columns that the file lacks are added; those that are not recorded any more stay, with blanks."""
        try:
            for pragma in (
                NO_ERASING,
                SMALL_CACHE,
                "PRAGMA synchronous=NORMAL",
                f"PRAGMA journal_size_limit={LOG_BYTES}",
            ):
                self._database.execute(pragma)
            self._database.execute(f"PRAGMA wal_autocheckpoint={LOG_BYTES // 4096}")
            known = {row[1].lower() for row in self._database.execute("PRAGMA table_info(ring)")}
            for name in columns:
                if name.lower() not in known:
                    self._database.execute(f"ALTER TABLE ring ADD COLUMN {_quoted(name)}")
        except sqlite3.Error as error:
            raise StoreError(f"can't use {path}: {error}: check the file, or delete it to begin anew") from None
        return columns

    def add(self, time: float, cells: Sequence[Cell]) -> None:
        """A row, which waits for the next commit."""
        self.lost += len(self._waiting) == MOST_WAITING
        self._waiting.append([time, *cells])

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def commit(self) -> None:
        """Write what waits, and delete what is too old. StoreError if the disk takes nothing; then everything waits."""
        if not self._waiting:
            return
        try:
            self._database.execute("BEGIN")
            self._database.executemany(self._insert, self._waiting)
            self._trim()
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # a full disk may have ended the transaction
                self._database.execute("ROLLBACK")
            raise StoreError(f"the ring can't be written: {error}: check the disk's space") from None
        self._waiting.clear()

    def _trim(self) -> None:
        first, last = self._database.execute("SELECT min(id), max(id) FROM ring").fetchone()
        count = last - first + 1
        least = 0
        if count > self._max_rows:
            least = count - self._max_rows * (SPARE - 1) // SPARE
        if self._bytes() > self._max_bytes:
            least = max(least, count // SPARE)
        if least:
            self._database.execute("DELETE FROM ring WHERE id < ?", (first + least,))

    def _bytes(self) -> int:
        """Bytes of the pages that hold something."""
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def close(self) -> None:
        self._database.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
