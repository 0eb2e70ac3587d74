"""Versions of a model that an aggregator keeps, and the names that the operator has given to some: tags.

A tag keeps its version from being dropped. The tag `best` is the aggregator's own: it follows the version with the best
score. The aggregator writes all this into aggregator.db (edgefl_broker/store.py). Commands read it from there, whether
an aggregator runs or not: SQLite shows each reader one state, and the database is opened for reading only.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from ..core.params import params_from_bytes, params_sha256
from ..core.plan import Plan
from ..core.skeleton import Skeleton
from ..core.stamp import Facts
from ..errors import StoreError, UsageError
from ..history_record import MOVED, RoundRecord
from .store import read_only, unseal

DATABASE = "aggregator.db"
SKELETON, PLAN = "skeleton.bin", "plan.json"  # beside the database: what `download` makes a file of
BEST = "best"
TAGS = "tags"  # the key of all tags in the table `meta`
MOST_TAGS = 32
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")


class Tag(msgspec.Struct, frozen=True, omit_defaults=True):
    """A name for a version. Of the best one, `judge` says on whose examples it has its scores, "test" or "devices", and
    `round` the round that told them."""

    version: int
    at: int = 0  # seconds after the start of 1970, UTC
    round: int = 0
    judge: str = ""
    accuracy: float | None = None
    loss: float | None = None


Tags = dict[str, Tag]


def check_name(name: str) -> str:
    """`name` itself if a tag may be called so; UsageError."""
    if name == BEST or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a version: 1 to 32 of A-Z, a-z, 0-9, '.', '_' and '-', a letter first, and not "
            f"{BEST!r}, which the aggregator moves itself"
        )
    return name


def pack(tags: Mapping[str, Tag]) -> str:
    return msgspec.json.encode(tags).decode()


def unpack(blob: bytes | None) -> Tags:
    """StoreError if they are damaged."""
    try:
        return msgspec.json.decode(blob or b"", type=Tags)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StoreError("the tags are damaged") from None


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that is kept, and what its round's record says of it, if that is kept too."""

    version: int
    bytes: int
    tags: list[str] = []
    round: int | None = None
    closed_at: int = 0
    accuracy: float | None = None
    loss: float | None = None
    restored: int | None = None


@contextmanager
def opened(folder: Path) -> Iterator[Versions]:
    """The versions in an aggregator's state folder; UsageError if there are none, StoreError if they can't be read."""
    path = folder / DATABASE
    if not path.is_file():
        raise UsageError(f"no {DATABASE} in {folder}: give the aggregator's state_dir with --state-dir")
    try:
        with read_only(path) as database:
            yield Versions(folder, database)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreError(f"can't read {path}: {error}: run this as its owner or as root") from None


class Versions:
    """Reads an open database."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self._folder, self._database = folder, database

    def tags(self) -> Tags:
        row = self._database.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (TAGS,)).fetchone()
        return {} if row is None else unpack(unseal(row[0]))

    def choice(self, key: str) -> str | None:
        """What the aggregator has chosen once and keeps under `key`; None if it has not. StoreError."""
        text = self.meta(key)
        if not text and self._database.execute("SELECT 1 FROM meta WHERE key = ?", (key,)).fetchone():
            raise StoreError(f"{self._folder / DATABASE} is damaged ({key}): put a backup in its place")
        return text or None

    def meta(self, key: str) -> str:
        row = self._database.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (key,)).fetchone()
        value = None if row is None else unseal(row[0])
        return "" if value is None else value.decode(errors="replace")

    def kept(self) -> list[Kept]:
        """All versions that are kept, in order."""
        records = {record.version: record for record in self._records()}
        named: dict[int, list[str]] = {}
        for name, tag in self.tags().items():
            named.setdefault(tag.version, []).append(name)
        query = "SELECT version, length(CAST(params AS BLOB)) FROM models ORDER BY version"
        return [
            _kept(version, size, sorted(named.get(version, [])), records.get(version))
            for version, size in self._database.execute(query)
        ]

    def _records(self) -> Iterator[RoundRecord]:
        for (row,) in self._database.execute("SELECT record FROM rounds ORDER BY round"):
            blob = unseal(row)
            try:
                record = None if blob is None else msgspec.json.decode(blob, type=RoundRecord)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if record is not None and record.state in MOVED:
                yield record

    def find(self, which: str) -> int:
        """The version that a number, a tag or `best` means; UsageError if none that is kept."""
        tags = self.tags()
        named = {name: tag.version for name, tag in tags.items()}
        version = int(which) if which.isdecimal() else named.get(which, -1)
        there = [kept.version for kept in self.kept()]
        if version in there:
            return version
        names = f"; tags are {', '.join(sorted(tags))}" if tags else ""
        raise UsageError(f"no version {which!r} is kept: there are {', '.join(map(str, there))}{names}")

    def params(self, version: int) -> np.ndarray:
        """(P,) float32; StoreError if they are damaged."""
        query = "SELECT CAST(sha256 AS BLOB), params, state FROM models WHERE version = ?"
        row = self._database.execute(query, (version,)).fetchone()
        if row is None or not is_sound(row[1], row[2], row[0].decode(errors="replace"), None):
            raise StoreError(f"version {version} in {self._folder / DATABASE} is damaged")
        return params_from_bytes(row[1])

    def file(self, version: int) -> list[bytes]:
        """The version as an ONNX file, in pieces; StoreError, UsageError."""
        params, plan = self.params(version), Plan.from_bytes(self._read(PLAN))
        made = Skeleton.from_bytes(self._read(SKELETON), plan.num_params)
        kept = next(kept for kept in self.kept() if kept.version == version)
        federation = self.meta("federation")
        facts = Facts(
            federation, self.meta("run"), version, kept.round or 0, plan.hash, params_sha256(params), kept.accuracy,
            kept.loss,
        )  # fmt: skip
        return [*made.pieces(params), facts.stamp(made.header.notes)]

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        if not path.exists():
            raise UsageError(
                f"there is no {name} in {self._folder}: the aggregator writes it when it starts; for a model without "
                "one, only model.onnx and best.onnx can be had"
            )
        return path.read_bytes()


def _kept(version: int, size: int, tags: list[str], record: RoundRecord | None) -> Kept:
    if record is None:
        return Kept(version, size, tags)
    return Kept(
        version, size, tags, record.round, record.closed_at, record.accuracy, record.loss, record.restored
    )  # fmt: skip


def digest(params: bytes, state: bytes) -> str:
    """What a model's row is checked by."""
    found = hashlib.sha256(params)
    found.update(state)
    return found.hexdigest()


def is_sound(params: object, state: object, sha256: str, num_params: int | None) -> bool:
    """Whether a row is as it was written; `num_params` None: of any length."""
    if not isinstance(params, bytes) or not isinstance(state, bytes):
        return False
    return (
        len(params) == 4 * (len(params) // 4 if num_params is None else num_params) and digest(params, state) == sha256
    )
