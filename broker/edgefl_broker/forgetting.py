"""Forgetting: a device that is gone is erased from what the aggregator has on disk.

Its name is cut out of the records of rounds, in the database and in the history's files; sums stay, since models were
made of them. Its late updates and its requests to be enrolled are deleted. What is deleted is overwritten. Each step
may be repeated, so an order that a crash has interrupted is carried out after the next start. A journal of accepted
updates is left as it is: it is the audit of all models.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgefl.history_record import RoundRecord
from edgefl.hosting.store import seal, unseal

log = logging.getLogger("edgefl.aggregator")


def erase_from_database(db: sqlite3.Connection, device: str) -> None:
    """Cut the device out of the records of rounds, and delete its late updates; durable when this returns."""
    if db.in_transaction:
        db.execute("COMMIT")
    db.execute("PRAGMA secure_delete=ON")
    try:
        with db:
            db.execute("BEGIN IMMEDIATE")
            for round, data in list(_changed(db, device)):
                db.execute("UPDATE rounds SET record = ? WHERE round = ?", (data, round))
            db.execute("DELETE FROM late WHERE CAST(device AS TEXT) = ?", (device,))
    finally:
        db.execute("PRAGMA secure_delete=OFF")
    try:
        db.execute("VACUUM")  # pages may hold copies of records that were moved; it takes as much room again
    except sqlite3.OperationalError as error:
        log.warning("parts of old records may be left in unused bytes of the database: %s", error)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log has the old pages


def _changed(db: sqlite3.Connection, device: str) -> Iterator[tuple[int, bytes]]:
    """The records that name the device, without it. One in memory at a time, and a damaged one as it is."""
    numbers = db.execute(
        "SELECT round FROM rounds WHERE instr(CAST(record AS BLOB), CAST(? AS BLOB))", (device,)
    ).fetchall()
    for (number,) in numbers:
        row = db.execute("SELECT record FROM rounds WHERE round = ?", (number,)).fetchone()
        blob = unseal(row[0])
        try:
            record = None if blob is None else msgspec.json.decode(blob, type=RoundRecord)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if record is not None:
            yield number, seal(msgspec.json.encode(record.without_device(device)))


def erase_claims(folder: Path, device: str) -> None:
    """Delete requests to be enrolled that name the device."""
    name = device.encode()
    for path in folder.glob("*.json"):
        if name in path.read_bytes():
            path.unlink()
