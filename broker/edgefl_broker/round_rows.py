"""RoundRows: the records of the last rounds in aggregator.db. Part of store.py."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgefl.history_record import RoundRecord
from edgefl.hosting.store import durable, seal, unseal

KEPT_RECORDS = 500  # more than `late_rounds` can be, and than history.jsonl can be behind; that has older ones too
DROPPED_AT_ONCE = 20  # older records that a commit drops: a folder of an earlier version has all of them
log = logging.getLogger("edgefl.aggregator")


class RoundRows:
    """The table `rounds` of an open database."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def insert(self, record: RoundRecord) -> None:
        """Add a record and drop old ones, in the transaction that is open."""
        self._db.execute("INSERT INTO rounds VALUES (?, ?)", (record.round, seal(msgspec.json.encode(record))))
        old = "SELECT round FROM rounds WHERE round <= ? ORDER BY round LIMIT ?"
        values = (record.round - KEPT_RECORDS, DROPPED_AT_ONCE)
        self._db.execute(f"DELETE FROM rounds WHERE round IN ({old})", values)

    def last(self) -> int:
        """The number of the last round that has a record, 0 without any."""
        return int(self._db.execute("SELECT coalesce(max(round), 0) FROM rounds").fetchone()[0])

    def recent(self, count: int) -> Iterator[RoundRecord]:
        """The last `count` rounds that are kept, in order, one in memory at a time. A damaged record is left out."""
        for number in self._numbers(count):
            if (record := self._read(number)) is not None:
                yield record

    @durable
    def _numbers(self, count: int) -> list[int]:
        query = "SELECT CAST(round AS INTEGER) FROM rounds ORDER BY round DESC LIMIT ?"
        return [number for (number,) in self._db.execute(query, (count,))][::-1]

    @durable
    def _read(self, number: int) -> RoundRecord | None:
        row = self._db.execute("SELECT record FROM rounds WHERE round = ?", (number,)).fetchone()
        record = None if row is None else _record(row[0])
        if record is not None and record.round == number:
            return record
        log.error("the record of round %d in %s is damaged: it is left out", number, self._path)
        return None


def _record(row: object) -> RoundRecord | None:
    """The record in a row; None if it is damaged."""
    blob = unseal(row)
    try:
        return None if blob is None else msgspec.json.decode(blob, type=RoundRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
