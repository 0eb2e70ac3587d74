"""The SQLite file that holds a daemon's state: opened with WAL and synchronous=FULL, so that a commit is on disk.

Only one process can use a state folder. A damaged file is never used without an error, and never deleted.

Not here: tables and what they mean; each daemon's store.py has its own.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import wraps
from itertools import count
from pathlib import Path
from typing import IO, Any, TypeVar

from msgspec import Struct

from ..errors import StoreError
from ..private_files import tighten

CLAIM_S = 1.0  # what another process may hold a folder for that does not use it
STAMP = 0x10001  # SQLite keeps 32 bits for a schema's number; it is written there twice, so that a flipped bit shows
SMALL_CACHE = "PRAGMA cache_size=-64"  # KiB instead of 2 MB: hardly a row is read twice
NO_ERASING = "PRAGMA secure_delete=OFF"  # Debian's default overwrites what is deleted: twice the bytes for an SD card
log = logging.getLogger("edgefl.hosting.store")
F = TypeVar("F", bound=Callable[..., Any])


def claim(folder: Path) -> IO[bytes]:
    """Lock `folder` for this process until the returned file is closed; StoreError if another process has locked it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # a link may lead to a file of somebody else
        file = open(os.open(folder / "lock", flags, 0o600), "r+b")  # noqa: SIM115
        _lock(file)
    except BlockingIOError:
        raise StoreError(f"{folder} is in use by another process: stop that one, or choose another state_dir") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{folder / 'lock'} is a link: find out who made it, and delete it") from None
        raise StoreError(f"can't use {folder}: {error.strerror}: check the folder and its owner") from None
    return file


def _lock(file: IO[bytes]) -> None:
    """BlockingIOError if another process keeps it. For a moment one also has it that looks (`is_claimed`), or that the
    daemon before was about to start a program with."""
    ends_at = time.monotonic() + CLAIM_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends_at:
                raise
        time.sleep(0.02)


def is_claimed(folder: Path) -> bool:
    """Whether a process has locked `folder`, which is left as it is; StoreError if that can't be told. A process that
    claims the folder in the microseconds of this look tries again."""
    try:
        with open(folder / "lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise StoreError(
            f"can't look at {folder}: {error.strerror}: run this as the folder's owner, or as root"
        ) from None
    return False


class Schema(Struct, frozen=True):
    """The tables of a database: `sql` creates those that are missing. `number` rises with every change of `sql`, and
    is stored in the file. `migrations[n]` is SQL that turns schema n into n + 1; a file whose schema has none is
    refused.
    """

    number: int
    sql: str
    migrations: Mapping[int, str]


def open_database(path: Path, schema: Schema, *, replaceable: bool) -> sqlite3.Connection:
    """The database at `path`, migrated to `schema`, in autocommit, for one thread at a time; StoreError.

    If the file is damaged and `replaceable`, it is renamed and a new one is created; otherwise it is an error.
    """
    try:
        try:
            return _open(path, schema)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the message may quote a damaged name
            if isinstance(error, sqlite3.OperationalError):
                raise
            if not replaceable:
                raise StoreError(
                    f"{path} is damaged ({error}): put a backup in its place, or empty the folder to start from round 1"
                ) from None
            aside = _put_aside(path)
            log.error("%s is damaged (%s): set aside as %s, starting without it", path, error, aside.name)
            return _open(path, schema)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreError(f"can't open {path}: {error}: check the folder, its owner and the space left") from None


def _put_aside(path: Path) -> Path:
    """Rename a damaged database, and then its log, in which its newest rows may be; returns the new name, which no
    other file had."""
    names = (path.with_suffix(f".damaged-{os.getpid()}-{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    with suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").rename(aside.with_name(f"{aside.name}-wal"))
    return aside


def set_aside(path: Path) -> list[Path]:
    """The databases that were at `path` and are damaged, the oldest first."""
    found = (each for each in path.parent.glob(f"{path.stem}.damaged-*") if not each.name.endswith(("-wal", "-shm")))
    return sorted(found, key=lambda each: (each.stat().st_mtime_ns, each.name))


def read_only(path: Path) -> closing[sqlite3.Connection]:
    """The database at `path`, to be read beside whatever uses it. Nothing is changed in it, but SQLite may make files
    beside it. sqlite3.Error."""
    return closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True))


def _open(path: Path, schema: Schema) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives its logs the same permissions
    for file in (path, *(path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm"))):
        tighten(file)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(NO_ERASING)
        database.execute(SMALL_CACHE)
        if (verdict := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(verdict)
        found = _schema_number(database)
        migrations = "" if found is None else _migrations(path, found, schema)
        stamp = "" if found == schema.number else f"PRAGMA user_version = {schema.number * STAMP};"
        database.executescript(f"BEGIN IMMEDIATE; {migrations} {schema.sql} {stamp} COMMIT;")
    except BaseException:
        database.close()
        raise
    return database


def _schema_number(database: sqlite3.Connection) -> int | None:
    """The number of the file's schema: 0 in a file older than schema numbers, None in a new file."""
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return None
    stamp: int = database.execute("PRAGMA user_version").fetchone()[0]
    number, rest = divmod(stamp, STAMP)
    if rest or number < 0:
        raise sqlite3.DatabaseError("the number of its schema")
    return number


def _migrations(path: Path, found: int, schema: Schema) -> str:
    """The SQL that brings a file of schema `found` up to date; StoreError if a migration is missing."""
    if found > schema.number:
        raise StoreError(
            f"{path} was written by a newer EdgeFL (schema {found}, this one reads {schema.number}): update EdgeFL here"
        )
    missing = [number for number in range(found, schema.number) if number not in schema.migrations]
    if missing:
        raise StoreError(
            f"{path} was written by an older EdgeFL (schema {found}, this one reads {schema.number} and can't migrate "
            f"{missing[0]}): go on with the EdgeFL that wrote it, or start anew in an empty folder"
        )
    if found < schema.number:
        log.info("%s: migrated from schema %d to %d", path, found, schema.number)
    return "".join(schema.migrations[number] for number in range(found, schema.number))


class FileGuard:
    """Notices that the files of an open database were deleted or replaced: SQLite would go on writing into files that
    have no name any more, and all that would be gone at the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files = (path, path.with_name(f"{path.name}-wal"))
        self._opened = {file: _identity(file) for file in files}

    def check(self) -> None:
        """StoreError unless the files are those that were opened."""
        for file, opened in self._opened.items():
            found = _identity(file)
            if opened is None:  # SQLite makes its log when it first needs one
                self._opened[file] = found
            elif found != opened:
                raise StoreError(
                    f"{file} was deleted or replaced while it was in use: nothing more is written to it. Put a backup "
                    f"of {self._path.name} in its place, without -wal and -shm files, then start again"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None: no file has."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def seal(data: bytes) -> bytes:
    """`data`, which contains no `~`, with its CRC-32: SQLite has no checksums, so a flipped bit would go unnoticed."""
    return b"%b~%08x" % (data, zlib.crc32(data))


def unseal(row: object) -> bytes | None:
    """The data that `seal` was given; None if it is damaged. A row without a `~` is older than seals, and is returned
    unchanged.

    SQLite stores the type beside the value, so a flipped bit can turn a blob into any type.
    """
    if isinstance(row, str):
        row = row.encode()
    if not isinstance(row, bytes):
        return None
    data, mark, _ = row.rpartition(b"~")
    if not mark:
        return row
    return data if seal(data) == row else None


def durable(method: F) -> F:
    """Turn SQLite and file errors of a store's method into StoreError: the state is not saved, so the caller stops."""

    @wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise StoreError(f"the state can't be kept ({error}): check the disk, its space and permissions") from error

    return guarded  # type: ignore[return-value]
