"""JournalFile: the SQLite file of a journal. One simulation at a time has it; another program's file is left as it is.

Design:
  a) The header of the file is read before SQLite opens it, which would write into a file that is not ours.
  b) The lock is flock's, on the file itself: it ends with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import EdgeFLError, StoreError, UsageError
from ...private_files import opener

FORMAT = 1
APPLICATION = 0x45464C4A  # "EFLJ"
MAGIC, AT = b"SQLite format 3\x00", slice(68, 72)  # of SQLite's header, and where it has the application's id
SUFFIXES = ("", "-wal", "-shm", "-journal")


class Busy(UsageError):
    """Another simulation has the journal."""


class Transaction:
    """What a block may ask of its transaction: that nothing of it be kept."""

    is_kept = True


class JournalFile:
    """The file at `path`, which is made with the tables of `schema` if it is missing. Busy, UsageError, StoreError."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        try:
            self._lock = _locked(path)
        except OSError as error:
            raise self.unusable(error) from None
        try:
            _check(path, self._lock)
            self.database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare(schema)
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise self.unusable(error) from None
        except EdgeFLError:
            os.close(self._lock)
            raise

    def _prepare(self, schema: str) -> None:
        """One transaction makes the tables and the id, before the file is put into WAL mode: a kill leaves a file of
        ours or an empty one."""
        if self.number("page_count") == 0:
            self.database.executescript(f"BEGIN; PRAGMA application_id={APPLICATION}; {schema} COMMIT;")
        self.database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")

    def one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """The first row; None if there is no row."""
        try:
            row: tuple[Any, ...] | None = self.database.execute(query, values).fetchone()
            return row
        except sqlite3.Error as error:
            raise self.unusable(error) from None

    def number(self, pragma: str) -> int:
        row = self.one(f"PRAGMA {pragma}")
        return int(row[0]) if row else 0

    @property
    def size(self) -> int:
        """Bytes, with what the open transaction adds."""
        return self.number("page_count") * self.number("page_size")

    def meta(self, key: str) -> str | None:
        row = self.one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else row[0]

    def write_meta(self, **values: str) -> None:
        self.database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All that the block writes is in the file, or nothing of it. StoreError."""
        transaction = Transaction()
        try:
            self.database.execute("BEGIN")
            yield transaction
            self.database.execute("COMMIT" if transaction.is_kept else "ROLLBACK")
        except sqlite3.Error as error:
            raise self.unusable(error) from None

    def unusable(self, error: Exception) -> StoreError:
        return StoreError(f"can't use {self.path} ({error}): make room or remove it, and start anew")

    def remove(self) -> None:
        """Close and remove the file; the lock is held until then."""
        self.database.close()
        _unlink(self.path)
        self.close()

    def close(self) -> None:
        self.database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove(path: Path) -> None:
    """Remove the journal at `path`, if there is one; Busy if a simulation has it."""
    if path.exists():
        lock = _locked(path)
        _unlink(path)
        os.close(lock)


def _unlink(path: Path) -> None:
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _locked(path: Path) -> int:
    """A descriptor of the file at `path`, made if it is not there, with a lock; OSError, Busy."""
    while True:
        found = opener(os.fspath(path), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(found), path.stat()):
                return found
        except BlockingIOError:
            os.close(found)
            raise Busy(f"another simulation is at work with {path}: wait for it, or name another file") from None
        except OSError:
            os.close(found)
            raise
        os.close(found)  # it was removed before the lock was ours


def _check(path: Path, file: int) -> None:
    """UsageError if the file is another program's, StoreError if it is no database; an empty one is new."""
    header = os.pread(file, 100, 0)
    if not header:
        return
    if header[: len(MAGIC)] != MAGIC:
        raise StoreError(f"can't use {path} (it is no database): remove it, and start anew, or name another file")
    if int.from_bytes(header[AT], "big") != APPLICATION:
        raise UsageError(f"{path} is another program's file, and no journal of a simulation: name another file")
