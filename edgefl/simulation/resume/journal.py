"""Journal: what a simulation has computed, on disk, so that a run that was stopped goes on as if it had not been.

A run is a function of its seed. A resumed run is played again from its start, with every training and evaluation read
from the journal instead of computed, up to the last checkpoint; from there on it computes. Whatever the state machines
know by then is right because they have lived through it, and the bits are those of an undisturbed run.

Design:
  a) A checkpoint is one transaction, made when a round is over. It has all results since the one before, what the disks
     of devices hold, and what the tasks under way began with. A kill loses what came after the last checkpoint.
  b) Every update is kept, so the file grows with the bytes that devices send. Of slots (residuals and the like), which
     are larger, only those in use are kept: a result that is played again has empty ones, until the end of the
     replay puts the real ones back.
  c) A checkpoint has a hash of the records, and one of the params. A replay that comes to others is refused.
  d) At its limit the file stays as it is: a resumed run computes again what came later.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from ..._core import isa
from ...coordinator.events import Evaluated
from ...core.params import params_sha256
from ...data import Dataset, digest
from ...device.training import LocalUpdate
from ...errors import EdgeFLError, StoreError, UsageError, path_of
from ...history import Run
from ...history_record import RoundRecord
from ...onnx.model import Model
from ...protocol.trouble import Trouble
from ..hosts.disk import Disk
from ..hosts.fleet import AggregatorHost
from ..tasks.task import Failed, Task
from .journal_file import FORMAT, JournalFile
from .journal_pool import JournalPool
from .journal_slots import SCHEMA as SLOTS
from .journal_slots import JournalSlots

LEAST_S = 2.0  # between two checkpoints
SHARE = 0.05  # of the time, which checkpoints may take
MOST_WAITING = 64 * 2**20  # bytes of results; then the next round that is over makes a checkpoint
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE results (
    device TEXT, nth INTEGER, blob BLOB NOT NULL, told TEXT NOT NULL, PRIMARY KEY (device, nth)) WITHOUT ROWID;
CREATE TABLE scores (nth INTEGER PRIMARY KEY, told TEXT NOT NULL);
"""


Disks = Mapping[str, Disk]  # by device


def identity(run: Run, model: Model, data: Dataset) -> dict[str, str]:
    """All that the bits of a run depend on, each as a hash or a word."""
    return {
        "settings": _sha256(msgspec.json.encode([run.settings, run.fleet])),
        "model": _sha256(msgspec.json.encode(model.plan), params_sha256(model.params).encode()),
        "data": digest.sha256(data),
        "instruction set": isa(),
        "edgefl": run.versions["edgefl"],
        "numpy": run.versions["numpy"],
    }


def _sha256(*pieces: bytes) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()


class Told(msgspec.Struct, omit_defaults=True):
    """What a result is beside its update: the round, the slots' names and the norms; or how the training failed."""

    round: int
    slots: list[str] = []
    norms: tuple[float, float] = (0.0, 0.0)
    failed: tuple[str, str] | None = None


class Journal:
    """The file at `path`, which is made if there is none; `max_bytes` bounds it. One run uses it, from one thread."""

    def __init__(self, path: str | os.PathLike[str], max_bytes: float = float("inf")) -> None:
        self.path, self._max_bytes = path_of(path), max_bytes
        self._file = JournalFile(self.path, SCHEMA + SLOTS)
        self._slots = JournalSlots(self._file.database)
        self.replays = 0  # rounds that are still played again
        self.is_full = False
        self._rounds = self._until = self._evaluations = self._bytes = 0
        self._records = hashlib.sha256()
        self._results: list[tuple[str, int, bytes, bytes]] = []
        self._scores: list[tuple[int, bytes]] = []
        self._after = 0.0  # when a checkpoint may be made

    @classmethod
    def of(cls, resume: Journal | str | os.PathLike[str], max_mb: float) -> Journal:
        """The journal that an argument stands for."""
        return resume if isinstance(resume, Journal) else cls(resume, max_mb * 1e6)

    @property
    def is_replaying(self) -> bool:
        """Whether the round that is just over was played again."""
        return 0 < self._rounds <= self._until

    # The run

    def begin(self, identity: Mapping[str, str]) -> None:
        """A run begins, or goes on if the file has a checkpoint; `identity` says what its bits depend on. UsageError
        if that is another run's."""
        try:
            self._take_up(identity)
        except BaseException:
            self.close()  # so that the caller may try again
            raise
        self.replays = self._until = int(self._file.meta("rounds") or 0)
        self._after = time.monotonic() + LEAST_S

    def _take_up(self, identity: Mapping[str, str]) -> None:
        found = self._file.meta("identity")
        if found is None:
            with self._file.transaction():
                self._file.database.execute("DELETE FROM meta")
                self._file.write_meta(identity=msgspec.json.encode(identity).decode(), format=str(FORMAT))
            return
        known = msgspec.json.decode(found, type=dict[str, str])
        other = sorted(key for key in known | dict(identity) if known.get(key) != identity.get(key))
        if other or self._file.meta("format") != str(FORMAT):
            what = ", ".join(other) or "the journal's format"
            raise UsageError(f"{self.path} is of a run with another {what}: resume it as it was, or start anew")

    def follow(self, aggregator: AggregatorHost) -> None:
        """Give the aggregator's fleet what the journal has, and keep what they compute."""
        fleet, coordinator = aggregator.fleet, aggregator.machine
        aggregator.evaluate, self._slot_file = self._evaluated(aggregator.evaluate), fleet.slots
        fleet.workers = self._pool = JournalPool(self, fleet.workers)
        on_round = fleet.on_round

        def wrapped(record: RoundRecord) -> None:
            self.round_over(record, lambda: coordinator.params, fleet.disks)
            on_round(record)

        fleet.on_round = wrapped

    def _evaluated(self, evaluate: Callable[[np.ndarray], Evaluated]) -> Callable[[np.ndarray], Evaluated]:
        """`evaluate`, with its results from the journal as long as it has them."""

        def wrapped(params: np.ndarray) -> Evaluated:
            self._evaluations += 1
            row = None
            if self.replays:
                row = self._file.one("SELECT told FROM scores WHERE nth = ?", self._evaluations)
            if row is not None:
                return msgspec.json.decode(row[0], type=Evaluated)
            scores = evaluate(params)
            if not self.is_full:
                self._scores.append((self._evaluations, msgspec.json.encode(scores)))
            return scores

        return wrapped

    def round_over(
        self, record: RoundRecord, params: Callable[[], np.ndarray], disks: Callable[[], Disks]
    ) -> None:  # fmt: skip
        """A round is over, and has led to `params`. StoreError if a replay has come to another end."""
        self._rounds += 1
        self._records.update(msgspec.json.encode(record))
        if self.replays:
            self.replays -= 1
            if not self.replays:
                self._end_replay(params(), disks())
        elif not self.is_full and (time.monotonic() >= self._after or self._bytes > MOST_WAITING):
            self._checkpoint(params(), disks())

    def done(self) -> None:
        """The run has come to its end: nothing is left to resume."""
        self._file.remove()

    def close(self) -> None:
        self._file.close()

    # Results

    def result(self, task: Task, nth: int) -> LocalUpdate:
        """The result of this task, or its failure; StoreError if that is not what the file has."""
        row = self._file.one("SELECT blob, told FROM results WHERE device = ? AND nth = ?", task.device, nth)
        if row is None:
            raise StoreError(f"{self.path} lacks a result of {task.device}: remove it, and start anew")
        blob, told = row[0], msgspec.json.decode(row[1], type=Told)
        if told.round != task.job.round.round:
            raise StoreError(f"{self.path} has {task.device} in round {told.round}: remove it, and start anew")
        if told.failed is not None:
            raise Failed(Trouble(*told.failed))
        return LocalUpdate(blob, dict.fromkeys(told.slots, b""), *told.norms)

    def keep(self, task: Task, nth: int, made: LocalUpdate | EdgeFLError) -> None:
        """Keep the result of this task, or its failure, for the next checkpoint."""
        if self.is_full:
            return
        number = task.job.round.round
        if isinstance(made, LocalUpdate):
            blob, told = made.blob, Told(number, sorted(made.slots), (made.norm, made.clipped_from))
        else:
            why = Trouble.of(made)
            blob, told = b"", Told(number, failed=(why.code, why.text))
        self._results.append((task.device, nth, blob, msgspec.json.encode(told)))
        self._bytes += len(blob)

    # Checkpoints

    def _checkpoint(self, params: np.ndarray, disks: Disks) -> None:
        began = time.monotonic()
        with self._file.transaction() as transaction:
            self._file.database.executemany("INSERT INTO results VALUES (?, ?, ?, ?)", self._results)
            self._file.database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", self._scores)
            self._slots.write(disks, self._pool.under_way())
            self._file.write_meta(
                rounds=str(self._rounds), records=self._records.hexdigest(), params=params_sha256(params)
            )
            transaction.is_kept = not self._file.size > self._max_bytes
        self.is_full = not transaction.is_kept
        self._results, self._scores, self._bytes = [], [], 0
        now = time.monotonic()
        self._after = now + max(LEAST_S, (now - began) / SHARE)

    def _end_replay(self, params: np.ndarray, disks: Disks) -> None:
        """Check where the replay has come to, and put back what it did not have."""
        come_to = {"records": self._records.hexdigest(), "params": params_sha256(params)}
        if other := [key for key, value in come_to.items() if self._file.meta(key) != value]:
            raise StoreError(
                f"{self.path}: round {self._rounds} has come to other {' and '.join(other)} than before; this run "
                "can't go on here: start anew without the journal"
            )
        with self._file.transaction():
            self._slots.put_back(disks, self._pool.under_way(), self._slot_file)
        self._pool.go_on()
