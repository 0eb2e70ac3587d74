"""Remains: what the databases of a state folder still have of masked rounds, those too that were set aside as damaged.

Nothing is changed in them. A damaged file is read as far as SQLite gets. A record of what was seen counts if its seal
is right, and an entry of the ledger if its hash is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgefl.device.seen import Seen
from edgefl.hosting.store import read_only, set_aside

from . import ledger, seen_rows

FAULTS = (OSError, sqlite3.Error, UnicodeDecodeError, msgspec.DecodeError)


class Remains(msgspec.Struct):
    """Of one database: what was `seen`, one record after another; the masked updates in its `ledger`, the oldest first,
    each as what it tells of its round. `faults`: why there may have been more."""

    path: Path
    seen: list[Seen]
    ledger: list[Seen]
    faults: list[str]

    @property
    def all(self) -> list[Seen]:
        return [*self.seen, *self.ledger]


def of_folder(path: Path, root: str) -> list[Remains]:
    """Of the databases that were at `path` and set aside, the oldest first, and of the one there; of this root."""
    return [_of_database(each, root) for each in (*set_aside(path), path)]


def _of_database(path: Path, root: str) -> Remains:
    found = Remains(path, [], [], [])
    try:
        with read_only(path) as database:
            _read(found.seen, "its memory", _of_rows(database, root), found)
            _read(found.ledger, "its ledger", _of_ledger(database, root), found)
    except FAULTS as error:
        found.faults.append(f"it can't be read ({error})")
    return found


def _read(into: list[Seen], what: str, records: Iterator[Seen | None], found: Remains) -> None:
    """All that can be read, and a fault if that is not all."""
    try:
        for record in records:
            if record is not None:
                into.append(record)
            elif (fault := f"{what} is damaged in part") not in found.faults:
                found.faults.append(fault)
    except FAULTS as error:
        found.faults.append(f"{what} can't be read ({error})")


def _of_rows(database: sqlite3.Connection, root: str) -> Iterator[Seen | None]:
    """What an agent has written that knew itself to have lost its memory is no memory."""
    for seen in seen_rows.records(database):
        if seen is None or (seen.root in ("", root) and not seen.lost):
            yield seen


def _of_ledger(database: sqlite3.Connection, root: str) -> Iterator[Seen | None]:
    for entry in ledger.entries(database):
        if entry is None:
            yield None
        elif entry.is_masked and entry.root in ("", root):
            yield Seen(epsilon=entry.epsilon, masked_round=entry.round, masked_run=entry.run, root=root)
