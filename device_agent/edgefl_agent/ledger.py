"""Ledger: the owner's record of every update that left the device, or may have left it, in agent.db.

An entry is written in the transaction that saves its update, which is before the update can leave; so no update leaves
without an entry, and the ledger costs no write of its own. An entry is never changed: its hash covers it and the hash
of the entry before. What became of the update is beside it, outside the chain, and is written when the database is
written anyway. The oldest entries are cut off, and the hash that the chain goes on from is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgefl.device.events import Origin, Outbox
from edgefl.digests import sha256
from edgefl.errors import StoreError
from edgefl.hosting.store import read_only
from edgefl.protocol.update_header import UpdateHeader

from . import seen_rows

SQL = """
CREATE TABLE IF NOT EXISTS ledger (
    number INTEGER PRIMARY KEY, time INTEGER NOT NULL, entry BLOB NOT NULL, hash BLOB NOT NULL,
    sent INTEGER, receipt TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS ledger_cut (
    id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, hash BLOB NOT NULL
);
"""  # time is 0 where the clock was not trusted; sent is NULL where it is not known
START = bytes(32)  # what the first entry goes on from
LEDGER_MONTHS = 12
MONTH_S = 30.44 * 86400
MAX_ENTRIES = 100_000  # about 50 MB, however short the rounds are
AT_ONCE = 32  # entries that one transaction cuts off, at most
LARGEST = 1e308  # JSON has no infinity


class Entry(msgspec.Struct, frozen=True):
    """One update. `time` is in Unix seconds, by a clock that was or was not `trusted`; `bytes` and `sha256` are of the
    update, header and encoded delta; the norms, `signer`, `epsilon` and `delta` are an Origin's. The `mode` of an
    update whose round was masked is "masked", or "masked profile". `root`: the fingerprint of the federation's, ""
    without keys."""

    time: int
    trusted: bool
    run: str
    manifest: str
    round: int
    version: int
    mode: str
    model_sha256: str
    num_examples: int
    bytes: int
    sha256: str
    norm: float
    clipped_from: float
    signer: str
    epsilon: float = 0.0
    delta: float = 0.0
    root: str = ""

    @property
    def is_masked(self) -> bool:
        return self.mode in ("masked", "masked profile")

    @classmethod
    def of(cls, outbox: Outbox, origin: Origin, unix_s: float, *, trusted: bool, root: str = "") -> Entry:
        """The entry of an update that is about to be saved."""
        blob = outbox.blob
        header = UpdateHeader.from_bytes(blob)
        mode = ("masked profile" if header.is_profile else "masked") if header.is_masked else outbox.mode
        return cls(
            int(unix_s), trusted, origin.run, outbox.manifest, outbox.round, outbox.version, mode,
            origin.model_sha256, header.num_examples, len(blob), sha256(blob).hexdigest(), min(origin.norm, LARGEST),
            min(origin.clipped_from, LARGEST), origin.signer, origin.epsilon,
            origin.delta, root,
        )  # fmt: skip


class Line(NamedTuple):
    """An entry as it is stored. `sent`: the bytes of all its messages, repeats too; None: the agent was killed before
    it could say. `receipt`: "counted", "rejected", or "" for none."""

    number: int
    entry: Entry
    hash: bytes
    sent: int | None
    receipt: str


class Ledger:
    """The ledger of an open database whose transactions are the caller's. The update that may be sent is the newest."""

    def __init__(self, database: sqlite3.Connection, months: float) -> None:
        self._db, self._months = database, months
        self._sent = 0  # bytes of the newest update since this was last written
        self._untold = False  # whether this process has made the newest entry, and not yet written what was sent

    def published(self, num_bytes: int) -> None:
        """A part of the newest update goes to the broker; it is written with what is written next."""
        self._sent += num_bytes

    def append(self, entry: Entry) -> None:
        """Add the entry of an update that is being saved, and cut old ones off."""
        self.note()
        last = self._db.execute("SELECT number, hash FROM ledger ORDER BY number DESC LIMIT 1").fetchone()
        number, before = last or _cut(self._db)
        raw = msgspec.json.encode(entry)
        time = entry.time if entry.trusted else 0
        row = (number + 1, time, raw, chained(before, raw))
        self._db.execute("INSERT INTO ledger (number, time, entry, hash) VALUES (?, ?, ?, ?)", row)
        self._untold = True
        self._cut_off(number + 1, time - self._months * MONTH_S)

    def note(self, receipt: str = "") -> None:
        """Write what has been sent of the newest update, and the receipt that there is for it."""
        if self._sent or self._untold:  # else an earlier process may have sent some
            self._db.execute(
                "UPDATE ledger SET sent = coalesce(sent, 0) + ? WHERE number = (SELECT max(number) FROM ledger)",
                (self._sent,),
            )
            self._sent, self._untold = 0, False
        if receipt:
            self._db.execute(
                "UPDATE ledger SET receipt = ? WHERE number = (SELECT max(number) FROM ledger)", (receipt,)
            )

    def _cut_off(self, newest: int, before: float) -> None:
        """Remove the oldest entries, up to one that was made before this time; or more, if there are too many."""
        rows = self._db.execute("SELECT number, time, hash FROM ledger ORDER BY number LIMIT ?", (AT_ONCE,)).fetchall()
        old = [row for row in rows if 0 < row[1] < before or row[0] <= newest - MAX_ENTRIES]
        if not old:
            return
        number, _, hash = old[-1]
        self._db.execute("DELETE FROM ledger WHERE number <= ?", (number,))
        self._db.execute("INSERT OR REPLACE INTO ledger_cut VALUES (1, ?, ?)", (number, hash))


def chained(before: bytes, raw: bytes) -> bytes:
    """The hash of an entry whose predecessor has the hash `before`."""
    return sha256(before + raw).digest()


def _cut(database: sqlite3.Connection) -> tuple[int, bytes]:
    """Number and hash of the last entry that was cut off."""
    number, hash = database.execute("SELECT number, hash FROM ledger_cut").fetchone() or (0, START)
    return number, hash


def entries(database: sqlite3.Connection) -> Iterator[Entry | None]:
    """All entries, the oldest first; None for one that is not as it was written. sqlite3.Error where the file is."""
    _, before = _cut(database)
    for raw, hash in database.execute("SELECT entry, hash FROM ledger ORDER BY number"):
        whole = isinstance(raw, bytes) and isinstance(before, bytes) and chained(before, raw) == hash
        yield msgspec.json.decode(raw, type=Entry) if whole else None
        before = hash


class Reader:
    """Reads the ledger of a state folder, also while its agent runs; StoreError if it can't be read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.db"
        if not self.path.exists():
            raise StoreError(f"there is no {self.path}: no agent has run with this state_dir yet")

    def lines(self) -> Iterator[Line]:
        """All entries, the oldest first."""
        for number, raw, hash, sent, receipt in self._rows():
            yield Line(number, _decoded(number, raw), hash, sent, receipt)

    def epsilons(self) -> dict[str, float]:
        """By root, the highest epsilon that a round has told: entries may have been cut off since."""
        try:
            with read_only(self.path) as database:
                return seen_rows.epsilons(database)
        except (sqlite3.Error, UnicodeDecodeError):  # a database of an earlier version, which no agent has opened yet
            return {}

    def verify(self) -> tuple[int, bytes]:
        """How many entries are here, and the hash of the newest; StoreError names the first that is not what it was."""
        count = 0
        with read_only(self.path) as database:
            number, before = _cut(database)
        for found, raw, hash, *_ in self._rows():
            number += 1
            if found != number:
                raise StoreError(f"the ledger lacks entry {number}: it was removed from {self.path}")
            if not isinstance(raw, bytes) or chained(before, raw) != hash:
                raise StoreError(f"entry {number} of the ledger is not what was written: {self.path} was changed")
            before, count = hash, count + 1
        return count, before

    def _rows(self) -> Iterator[tuple[int, bytes, bytes, int | None, str]]:
        try:
            with read_only(self.path) as database:
                yield from database.execute("SELECT number, entry, hash, sent, receipt FROM ledger ORDER BY number")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise StoreError(f"the ledger in {self.path} can't be read: {error}") from None


def _decoded(number: int, raw: bytes) -> Entry:
    try:
        return msgspec.json.decode(raw, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        raise StoreError(f"entry {number} of the ledger can't be read: `sent --verify` tells more") from None
