"""What a device keeps on disk: how often it has started, the newest update until its round is over, and slots.

There are up to two slots of a name (edgefl/device/slots.py). A *new* one was left by the saved update; a *current* one
is what the device goes on from. When the update is dropped, the current ones go if it is in the model, else the new
ones. Those that stay are the current ones from then on. That a slot becomes a current one writes one page, and not
the slot again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from msgspec.structs import asdict, fields

from edgefl.device.events import Outbox
from edgefl.device.owner.budget import Spent
from edgefl.device.seen import Seen
from edgefl.device.slots import OUTLASTING, Slot
from edgefl.hosting.store import SMALL_CACHE, FileGuard, Schema, claim, durable, open_database

from . import ledger, seen_rows
from .ledger import LEDGER_MONTHS, Entry, Ledger

MOST_STARTS = 2**32  # a boot number of a later start would be longer than a status may tell

_SQL = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    manifest TEXT NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL, blob BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS slot (
    name TEXT NOT NULL, new INTEGER NOT NULL, owner TEXT NOT NULL, round INTEGER NOT NULL, crc INTEGER NOT NULL,
    blob BLOB NOT NULL  -- last, so that the others are read without it; so few rows need no index
);
"""
_ONE_RESIDUAL = f"""
CREATE TABLE IF NOT EXISTS residual (round INTEGER PRIMARY KEY, manifest TEXT, crc INTEGER, blob BLOB);
{_SQL}
INSERT OR IGNORE INTO slot SELECT 'residual', round IS (SELECT round FROM outbox), manifest, round, crc, blob
    FROM residual;
DROP TABLE residual;
"""
# 0: older than numbers; 2: no ledger; 3: residuals, and no other slots; 4: one copy of what was seen, of one root
_ONE_SEEN = f"CREATE TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY, record BLOB); {seen_rows.ONE_ROW}"
_SCHEMA = Schema(5, _SQL + ledger.SQL + seen_rows.SQL, {0: "", 1: "", 2: "", 3: _ONE_RESIDUAL, 4: _ONE_SEEN})
log = logging.getLogger("edgefl.agent")


class AgentStore:
    """`agent.db` in the state folder. One thread uses it, except for `load_slot`; raises StoreError."""

    def __init__(self, folder: Path, ledger_months: float = LEDGER_MONTHS) -> None:
        self._claim = claim(folder)
        self._path = folder / "agent.db"
        self._db = open_database(self._path, _SCHEMA, replaceable=True)  # a round can be trained again
        self._guard = FileGuard(self._path)
        self.ledger = Ledger(self._db, ledger_months)

    @durable
    def count_start(self) -> int:
        """Count a start of the agent; returns its number, from 1.

        A damaged count goes on from the time of day in seconds, which is above all that were told: the aggregator goes
        by the highest.
        """
        row = self._db.execute("SELECT value FROM meta WHERE key = 'starts'").fetchone()
        count = 1 if row is None else row[0] + 1 if isinstance(row[0], int) else 0
        if not 1 <= count < MOST_STARTS:
            log.error("the count of starts in %s is damaged: going on from the time of day", self._path)
            count = int(time.time())
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('starts', ?)", (count,))
        return count

    @durable
    def load(self) -> Outbox | None:
        """The saved update, or None. A damaged one is dropped, since the round can be trained again."""
        row = self._db.execute("SELECT manifest, round, version, blob FROM outbox").fetchone()
        if row is None:
            return None
        manifest, round, version, blob = row
        saved = Outbox(
            manifest,
            round,
            version,
            blob,
            self._number("counted") or 0,
            self._number("attempt") or 0,
            self._number("stamp") or 0,
        )
        crc = self._number("outbox_crc")  # None in a file that is older than the CRC
        if isinstance(saved.blob, bytes) and crc in (None, _crc(saved)):
            return saved
        log.error("the saved update in %s is damaged: going on without it", self._path)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            outlasting = ", ".join(f"'{name}'" for name in OUTLASTING)
            self._db.execute(f"DELETE FROM slot WHERE new OR name NOT IN ({outlasting})")  # it may have counted
            self._db.execute("DELETE FROM outbox")
        return None

    def _number(self, key: str) -> int | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row and isinstance(row[0], int) else None

    def _set_number(self, key: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @durable
    def save(self, outbox: Outbox, slots: Mapping[str, Slot], entry: Entry | None = None) -> None:
        """Replace the saved update and the new slots, with the ledger's entry; durable when this returns. A current
        slot is dropped if the new one belongs to something else."""
        self._guard.check()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM slot WHERE new")
            values = (outbox.manifest, outbox.round, outbox.version, outbox.blob)
            self._db.execute("INSERT OR REPLACE INTO outbox VALUES (1, ?, ?, ?, ?)", values)
            self._set_number("counted", outbox.counted)
            self._set_number("attempt", outbox.attempt)
            self._set_number("stamp", outbox.stamp)
            self._set_number("outbox_crc", _crc(outbox))
            for name, slot in slots.items():
                self._db.execute("DELETE FROM slot WHERE name = ? AND owner != ?", (name, slot.owner))
                row = (name, slot.owner, slot.round, slot.crc, slot.blob)
                self._db.execute("INSERT INTO slot VALUES (?, 1, ?, ?, ?, ?)", row)
            if entry is not None:
                self.ledger.append(entry)

    @durable
    def mark_counted(self, attempt: int) -> None:
        """The saved update is counted in this attempt of its round (0: in no attempt); durable when this returns."""
        self._guard.check()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._set_number("counted", attempt)
            self.ledger.note("counted" if attempt else "")

    @durable
    def drop(self, applied: bool, receipt: str = "") -> None:
        """Drop the saved update, and the current slots if the update is in the model (`applied`), else the new ones."""
        self._guard.check()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM slot WHERE new != ? AND EXISTS (SELECT 1 FROM outbox)", (applied,))
            if applied:
                self._db.execute("UPDATE slot SET new = 0")
                self._set_number("in_model", self._number("stamp") or 0)
            self._db.execute("DELETE FROM outbox")
            self.ledger.note(receipt)

    @durable
    def load_in_model(self) -> int:
        """What names the data that are in a model (DataStamp); 0: not known."""
        return self._number("in_model") or 0

    @durable
    def save_spent(self, spent: Spent) -> None:
        """Replace what is spent of the byte budget; durable when this returns."""
        self._guard.check()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for key, value in asdict(spent).items():
                self._set_number(f"spent_{key}", value)

    @durable
    def load_spent(self) -> Spent:
        """What was spent, at most; nothing if a number is damaged or missing."""
        found = {field.name: self._number(f"spent_{field.name}") for field in fields(Spent)}
        numbers = {name: value for name, value in found.items() if isinstance(value, int) and value >= 0}
        return Spent(**numbers) if len(numbers) == len(found) else Spent()

    @durable
    def save_seen(self, seen: Seen) -> None:
        """Replace what the device has seen of its federation; durable when this returns."""
        self._guard.check()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            seen_rows.save(self._db, seen)

    @durable
    def load_seen(self, root: str) -> Seen | None:
        """What the device has seen of the federation whose root has this fingerprint; None: nothing."""
        return seen_rows.load(self._db, root, self._path)

    def load_slot(self, name: str) -> Slot | None:
        """The current slot of that name, unchecked; None if the device has no such slot, or it can't be read. Any
        thread may call this."""
        try:
            with closing(sqlite3.connect(self._path)) as database:
                database.execute(SMALL_CACHE)
                row = database.execute(
                    "SELECT owner, round, blob, crc FROM slot WHERE name = ? AND new = 0", (name,)
                ).fetchone()
        except sqlite3.Error as error:
            log.warning("the %s can't be read (%s): going on without it", name, error)
            return None
        if row is None:
            return None
        if [type(value) for value in row] != [str, int, bytes, int]:  # a flipped bit may have changed a type
            log.warning("the %s in %s is damaged: going on without it", name, self._path)
            return None
        return Slot(*row)

    def close(self) -> None:
        with suppress(sqlite3.Error):  # the disk may be why the agent ends
            self.ledger.note()
        self._db.close()
        self._claim.close()


def _crc(outbox: Outbox) -> int:
    """CRC-32 of the fields that never change while the update is saved."""
    text = f"{outbox.manifest} {outbox.round} {outbox.version} {outbox.attempt}"
    return zlib.crc32(text.encode(), zlib.crc32(outbox.blob))
