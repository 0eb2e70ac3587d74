"""What the aggregator keeps on disk: a record for each round, the newest models, and late updates.

It also stores which run and plan they belong to. A commit writes a round in one transaction.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edgefl import strategies
from edgefl.atomic import remove_partials, write_atomically
from edgefl.coordinator.events import LateUpdate
from edgefl.coordinator.quarantine import Suspect
from edgefl.coordinator.saved_ask import SavedAsk
from edgefl.core.params import params_sha256
from edgefl.errors import StoreError
from edgefl.history_record import RoundRecord
from edgefl.hosting.store import FileGuard, Schema, claim, durable, open_database, seal, unseal
from edgefl.privacy.ledger import Ledger, newest
from edgefl.strategies.checkpoint import unpack

from . import ask_row
from .ask_row import AskRow
from .forgetting import erase_from_database
from .late_rows import LateRows
from .models import KEPT_MODELS, Models

KEPT_RECORDS = 500  # more than `late_rounds` can be, and than history.jsonl can be behind; that has older ones too
DROPPED_AT_ONCE = 20  # older records that a commit drops: a folder of an earlier version has all of them
HEX = set(b"0123456789abcdef")  # values of `meta` that are older than seals have no other characters
log = logging.getLogger("edgefl.aggregator")

_SQL = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, params BLOB NOT NULL, state BLOB NOT NULL DEFAULT x''
);
CREATE TABLE IF NOT EXISTS late (
    device TEXT NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL, codec INTEGER NOT NULL, blob BLOB NOT NULL,
    crc INTEGER NOT NULL
);
"""
# Schema 0 is older than the state of strategies, and lacks its column; schema 1 lacks the table of masked rounds.
_SCHEMA = Schema(2, _SQL + ask_row.SQL, {0: "ALTER TABLE models ADD COLUMN state BLOB NOT NULL DEFAULT x'';", 1: ""})


@dataclass(frozen=True)
class State:
    """Where to go on. `run` identifies the federation's history. `start` is the number of this process, which becomes
    durable with `save_attempt`.

    `strategy` is the name of the strategy that made `params`, and `state` its state; "" and {} if it has no state.
    """

    run: str
    start: int
    round: int
    version: int
    params: np.ndarray
    strategy: str = ""
    state: strategies.State = field(default_factory=dict)


class AggregatorStore:
    """`aggregator.db` in the state folder. One thread uses it; raises StoreError. It keeps the last `models`, as far as
    they take at most `model_bytes`."""

    def __init__(self, folder: Path, models: int = KEPT_MODELS, model_bytes: float = 2**28) -> None:
        self._path = folder / "aggregator.db"
        self._attempt = folder / "attempt"
        self._claim = claim(folder)
        remove_partials(folder)
        self._db = open_database(self._path, _SCHEMA, replaceable=False)
        self.models = Models(self._db, self._path, models, model_bytes)
        self._late, self._ask = LateRows(self._db, self._path), AskRow(self._db)
        self._guard = FileGuard(self._path)

    @durable
    def resume(
        self,
        plan_hash: str,
        params: np.ndarray,
        known: RoundRecord | None = None,
        keep: Mapping[str, str] | None = None,
    ) -> State:
        """The state to go on from. A new folder starts with `params`, the model file's, and with what to `keep`.

        `known` is the last record in history.jsonl: SQLite drops all commits after a flipped bit in its log. The number
        of the last start is in a file of its own too: an aggregator that fell back behind its own claim would be
        refused as the older of two.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if known is not None and not self._db.execute("SELECT 1 FROM meta").fetchone():
                raise StoreError(
                    f"{self._path} is empty, but history.jsonl tells of {known.round} rounds: put a backup in its "
                    "place, or empty the folder to start from the ONNX file"
                )
            for key, value in (keep or {}).items():
                self._meta(key, value)
            run = self._meta("run", secrets.token_hex(8))
            if self._meta("plan", plan_hash) != plan_hash:
                raise StoreError(f"{self._path} belongs to another model: give this federation a state_dir of its own")
            if self._meta("start_params", params_sha256(params)) != params_sha256(params):
                log.warning(
                    "the model file's weights are not those that %s began with: going on from the folder's own model; "
                    "to start from the file, choose another state_dir", self._path.parent,
                )  # fmt: skip
            known_attempt = 0 if known is None else known.attempt
            start = max(self._count("start"), known_attempt, self._last_attempt()) + 1
            if not self._db.execute("SELECT 1 FROM models").fetchone():
                self.models.insert(0, params.astype("<f4", copy=False).tobytes(), b"")
            round = self._last_round(known) + 1
            version, newest, state = self.models.newest_sound(len(params), 0 if known is None else known.version)
        return State(run, start, round, version, newest, *unpack(state))

    def _last_round(self, known: RoundRecord | None) -> int:
        """The last round that has ended. Its number is never used again, even if its record is lost."""
        last = int(self._db.execute("SELECT coalesce(max(round), 0) FROM rounds").fetchone()[0])
        last = max(last, self._count("lost"))
        if known is None or known.round <= last:
            return last
        log.error("%s has lost the rounds from %d to %d: is the disk failing?", self._path, last + 1, known.round)
        self._set_meta("lost", str(known.round))
        return known.round

    @durable
    def save_attempt(self, attempt: int) -> None:
        """This process has won the federation: no later start gets its number."""
        self._guard.check()
        self._set_meta("start", str(attempt))
        write_atomically(self._attempt, seal(b"%d" % attempt))

    def _last_attempt(self) -> int:
        """The number in the file beside the database; 0 if the file is missing or damaged."""
        if not self._attempt.exists():
            return 0
        data = self._attempt.read_bytes()
        number = unseal(data)
        if number is None or number == data or not number.isdigit():
            log.error("%s is damaged: it is left out", self._attempt)
            return 0
        return int(number)

    @durable
    def keep(self, key: str, value: str) -> str:
        """The value stored under `key`. A key without a value gets `value`, durable when this returns."""
        return self._meta(key, value)

    @durable
    def kept(self, key: str) -> str | None:
        """The value stored under `key`, or None."""
        known = self._db.execute("SELECT 1 FROM meta WHERE key = ?", (key,)).fetchone()
        return self._meta(key, "") if known else None

    @durable
    def highest(self, key: str, number: int) -> int:
        """The highest number that was ever given for `key`, this one too; durable when this returns."""
        known = self._count(key)
        if number > known:
            self._set_meta(key, str(number))
        return max(number, known)

    def _meta(self, key: str, default: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            self._set_meta(key, default)
            return default
        value = unseal(row[0]) if isinstance(row[0], str) else None  # a flipped bit may have made it a blob
        if not value or (value.decode() == row[0] and not set(value) <= HEX):
            raise self._damaged(key)
        return value.decode()

    def _count(self, key: str) -> int:
        """The number stored under `key`, 0 without one."""
        value = self._meta(key, "0")
        if not value.isdecimal():
            raise self._damaged(key)
        return int(value)

    def _damaged(self, key: str) -> StoreError:
        return StoreError(f"{self._path} is damaged ({key}): put a backup in its place")

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, seal(value.encode()).decode()))

    def save_late(self, update: LateUpdate) -> None:
        """Store a late update. It is durable after the next `flush` or `commit`, so several updates share one write."""
        self._late.save(update)

    @durable
    def flush(self) -> None:
        """Late updates that were saved are durable when this returns."""
        if self._db.in_transaction:
            self._guard.check()
            self._db.execute("COMMIT")

    def late(self) -> Iterator[LateUpdate]:
        """The late updates that no commit has removed, one in memory at a time."""
        return self._late.all()

    @durable
    def drop_late(self) -> None:
        """Delete all late updates: no round of this configuration folds them in."""
        if self._late.erase("?", (1,)):
            log.warning("late updates that waited for a round are dropped: the configuration folds none in")

    @durable
    def save_ask(self, saved: SavedAsk) -> None:
        """Store the set that helpers will be asked to open; durable when this returns."""
        self._guard.check()
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._ask.save(saved)

    @durable
    def asked(self) -> SavedAsk | None:
        """What `save_ask` has stored and no commit has removed."""
        return self._ask.load()

    @durable
    def save_suspects(self, suspects: Mapping[str, Suspect]) -> None:
        """Store the devices of which signed updates were refused, in place of those stored before; durable when this
        returns."""
        self.write("suspects", msgspec.json.encode(suspects).decode())

    @durable
    def save_paused(self, paused: Mapping[str, str]) -> None:
        """Store the devices that an operator has paused, and why, in place of those stored before; durable when this
        returns."""
        self.write("paused", msgspec.json.encode(paused).decode())

    @durable
    def paused(self) -> dict[str, str]:
        """What `save_paused` has stored; StoreError if that is damaged: a paused device must not be asked."""
        blob = self.read("paused")
        try:
            return msgspec.json.decode(b"{}" if blob is None else blob, type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._damaged("paused") from None

    @durable
    def ledger(self, root: str, delta: float) -> Ledger:
        """What the federation of this root has spent; StoreError if that is damaged, or counts at another delta."""
        blob = self.read(f"ledger {root}")
        return Ledger(root, delta) if blob is None else Ledger.of_text(blob, root, delta)

    @durable
    def save_ledger(self, ledger: Ledger) -> None:
        """Store what was spent; durable when this returns. StoreError if that is less than what is stored."""
        self.write(f"ledger {ledger.root}", newest(self.ledger(ledger.root, ledger.delta), ledger).to_text())

    @durable
    def forget(self, device: str) -> None:
        """Erase a device that is gone from the records of rounds; durable when this returns."""
        self._guard.check()
        erase_from_database(self._db, device)

    @durable
    def write(self, key: str, text: str) -> None:
        """Store `text` under `key`, which is a table of its own; durable when this returns."""
        self._guard.check()
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._set_meta(key, text)

    @durable
    def read(self, key: str) -> bytes | None:
        """What `write` has stored under `key`; b"" if it is damaged, None if there is nothing."""
        row = self._db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else unseal(row[0].decode(errors="replace")) or b""

    @durable
    def suspects(self) -> dict[str, Suspect]:
        """What `save_suspects` has stored; nothing if that is damaged."""
        blob = self.read("suspects")
        blob = b"{}" if blob is None else blob
        try:
            return msgspec.json.decode(blob, type=dict[str, Suspect])
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.error("the table of devices in quarantine in %s is damaged: it is left out", self._path)
            return {}

    @durable
    def commit(
        self,
        record: RoundRecord,
        params: np.ndarray | None,
        drop: Sequence[tuple[str, int]] = (),
        state: bytes = b"",
    ) -> None:
        """Write a round in one transaction: its record, its model with the strategy's `state`, and the removal of late
        updates, given in `drop` by device and round. Durable when this returns."""
        self._guard.check()
        with self._db:
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT INTO rounds VALUES (?, ?)", (record.round, seal(msgspec.json.encode(record))))
            old = "SELECT round FROM rounds WHERE round <= ? ORDER BY round LIMIT ?"
            values = (record.round - KEPT_RECORDS, DROPPED_AT_ONCE)
            self._db.execute(f"DELETE FROM rounds WHERE round IN ({old})", values)
            self._late.erase("device = ? AND round = ?", *drop)
            self._ask.drop(record.round)
            if params is not None:
                self.models.insert(record.version, params.astype("<f4", copy=False).tobytes(), state)
                self.models.drop_old()

    def recent(self, count: int) -> Iterator[RoundRecord]:
        """The last `count` rounds that are kept, in order, one in memory at a time. A damaged record is left out."""
        for number in self._numbers(count):
            if (record := self._read_record(number)) is not None:
                yield record

    def records(self) -> list[RoundRecord]:
        """The last rounds, in order: at most about KEPT_RECORDS."""
        return list(self.recent(KEPT_RECORDS))

    @durable
    def _numbers(self, count: int) -> list[int]:
        query = "SELECT CAST(round AS INTEGER) FROM rounds ORDER BY round DESC LIMIT ?"
        return [number for (number,) in self._db.execute(query, (count,))][::-1]

    @durable
    def _read_record(self, number: int) -> RoundRecord | None:
        row = self._db.execute("SELECT record FROM rounds WHERE round = ?", (number,)).fetchone()
        record = None if row is None else _record(row[0])
        if record is not None and record.round == number:
            return record
        log.error("the record of round %d in %s is damaged: it is left out", number, self._path)
        return None

    def close(self) -> None:
        self._db.close()
        self._claim.close()


def _record(row: object) -> RoundRecord | None:
    """The record in a row; None if it is damaged."""
    blob = unseal(row)
    try:
        return None if blob is None else msgspec.json.decode(blob, type=RoundRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
