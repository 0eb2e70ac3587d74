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
from edgefl.coordinator.devices.quarantine import Suspect
from edgefl.coordinator.events import LateUpdate
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.core.params import params_sha256
from edgefl.errors import StoreError
from edgefl.history_record import RoundRecord
from edgefl.hosting.store import FileGuard, Schema, claim, durable, open_database, seal, unseal
from edgefl.plural import plural
from edgefl.privacy.clipping import ClipState
from edgefl.privacy.ledger import Ledger, newest
from edgefl.strategies.checkpoint import unpack

from . import ask_row
from .ask_row import AskRow
from .forgetting import erase_from_database
from .late_rows import LateRows
from .meta import Meta
from .models import KEPT_MODELS, Models
from .round_rows import KEPT_RECORDS, RoundRows

CLIP = "clip"  # the key of the adaptive clip
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
        self._values, self._rounds = Meta(self._db, self._path), RoundRows(self._db, self._path)
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
            if known is not None and self._values.is_empty():
                raise StoreError(
                    f"{self._path} is empty, but history.jsonl tells of {plural(known.round, 'round')}: put a backup "
                    "in its place, or empty the folder to start from the ONNX file"
                )
            for key, value in (keep or {}).items():
                self._values.get(key, value)
            run = self._values.get("run", secrets.token_hex(8))
            if self._values.get("plan", plan_hash) != plan_hash:
                raise StoreError(f"{self._path} belongs to another model: give this federation a state_dir of its own")
            if self._values.get("start_params", params_sha256(params)) != params_sha256(params):
                log.warning(
                    "the model file's weights are not those that %s began with: going on from the folder's own model; "
                    "to start from the file, choose another state_dir", self._path.parent,
                )  # fmt: skip
            known_attempt = 0 if known is None else known.attempt
            start = max(self._values.number("start"), known_attempt, self._last_attempt()) + 1
            if not self._db.execute("SELECT 1 FROM models").fetchone():
                self.models.insert(0, params.astype("<f4", copy=False).tobytes(), b"")
            round = self._last_round(known) + 1
            version, newest, state = self.models.newest_sound(len(params), 0 if known is None else known.version)
        return State(run, start, round, version, newest, *unpack(state))

    def _last_round(self, known: RoundRecord | None) -> int:
        """The last round that has ended. Its number is never used again, even if its record is lost."""
        last = max(self._rounds.last(), self._values.number("lost"))
        if known is None or known.round <= last:
            return last
        log.error(
            "%s has lost the rounds from %d to %d: if it comes from a backup, begin the next epoch with `edgefl keys "
            "epoch` (docs/operations.md); else the disk may be failing", self._path, last + 1, known.round,
        )  # fmt: skip
        self._values.put("lost", str(known.round))
        return known.round

    @durable
    def save_attempt(self, attempt: int) -> None:
        """This process has won the federation: no later start gets its number."""
        self._guard.check()
        self._values.put("start", str(attempt))
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
        return self._values.get(key, value)

    @durable
    def kept(self, key: str) -> str | None:
        """The value stored under `key`, or None."""
        return self._values.get(key, "") if self._values.has(key) else None

    @durable
    def highest(self, key: str, number: int) -> int:
        """The highest number that was ever given for `key`, this one too; durable when this returns."""
        known = self._values.number(key)
        if number > known:
            self._values.put(key, str(number))
        return max(number, known)

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
            raise self._values.damaged("paused") from None

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
    def clip(self) -> ClipState | None:
        """The adaptive clip that the newest commit with one has stored; StoreError if that is damaged."""
        blob = self.read(CLIP)
        return None if blob is None else ClipState.of_text(blob)

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
        self._values.put(key, text)

    @durable
    def read(self, key: str) -> bytes | None:
        """What `write` has stored under `key`; b"" if it is damaged, None if there is nothing."""
        return self._values.bytes(key)

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
        clip: ClipState | None = None,
    ) -> None:
        """Write a round in one transaction: its record, its model with the strategy's `state`, the removal of late
        updates, given in `drop` by device and round, and an adaptive `clip`. Durable when this returns."""
        self._guard.check()
        with self._db:
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            self._rounds.insert(record)
            self._late.erase("device = ? AND round = ?", *drop)
            self._ask.drop(record.round)
            if clip is not None:
                self._values.put(CLIP, clip.to_text())
            if params is not None:
                self.models.insert(record.version, params.astype("<f4", copy=False).tobytes(), state)
                self.models.drop_old()

    def recent(self, count: int) -> Iterator[RoundRecord]:
        """The last `count` rounds that are kept, in order, one in memory at a time. A damaged record is left out."""
        return self._rounds.recent(count)

    def records(self) -> list[RoundRecord]:
        """The last rounds, in order: at most about KEPT_RECORDS."""
        return list(self.recent(KEPT_RECORDS))

    def close(self) -> None:
        self._db.close()
        self._claim.close()
