"""Opening the SQLite file that a daemon keeps its truth in: WAL, synchronous=FULL, so a commit is on disk.

A damaged file is set aside, never silently used and never deleted.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from .errors import StoreError

log = logging.getLogger("edgefl.store")
F = TypeVar("F", bound=Callable[..., Any])


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """The database at `path` with `schema` (idempotent SQL), in autocommit, for one thread at a time; StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open(path, schema)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = path.with_suffix(f".damaged-{os.getpid()}")
            path.rename(aside)
            log.error("%s is damaged (%s): set aside as %s, starting without it", path, error, aside.name)
            return _open(path, schema)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"can't open {path}: {error}: check the folder, its owner and the space left") from None


def _open(path: Path, schema: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        if (verdict := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(verdict)
        database.executescript(schema)
    except BaseException:
        database.close()
        raise
    return database


def durable(method: F) -> F:
    """A store's method whose SQLite and file errors become StoreError: the caller must stop, nothing was promised."""

    @wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the state can't be written ({error}): check disk space and permissions") from error

    return guarded  # type: ignore[return-value]
