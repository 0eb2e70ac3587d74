"""Disks that keep the contract of the two stores, one transaction a method, and fail as disks do.

A fate is laid upon the next write: power is lost before it, or after it but before the caller knows; the disk is full;
the disk reports an error and nobody knows. What lies there may lose a bit. Tests hold these to the real stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import msgspec
import numpy as np
from edgefl_broker.models import KEPT_MODELS
from edgefl_broker.store import State
from msgspec.structs import replace

from edgefl.coordinator.devices.quarantine import Suspect
from edgefl.coordinator.events import LateUpdate
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.core.params import params_from_bytes, params_to_bytes
from edgefl.device.events import Outbox
from edgefl.device.seen import Seen
from edgefl.device.slots import Slot
from edgefl.errors import StoreError
from edgefl.history_record import RoundRecord
from edgefl.privacy.clipping import ClipState
from edgefl.privacy.ledger import Ledger, newest
from edgefl.simulation.hosts.disk import Disk
from edgefl.strategies.checkpoint import unpack

from .operator import Order

Fate = Literal["", "power lost before", "power lost after", "full", "error before", "error after"]


class PowerLost(Exception):
    """The process is gone."""


class FailingDisk:
    """`fate` befalls the next write."""

    fate: Fate = ""

    def transact(self, write: Callable[[], None]) -> None:
        """Whole or not at all, and durable when this returns. Raises PowerLost, StoreError."""
        fate, self.fate = self.fate, ""
        if fate == "power lost before":
            raise PowerLost
        if fate in ("full", "error before"):
            raise StoreError(fate)
        write()
        if fate == "power lost after":
            raise PowerLost
        if fate == "error after":
            raise StoreError(fate)


class DeviceDisk(FailingDisk):
    """As edgefl_agent.store.AgentStore."""

    def __init__(self) -> None:
        self.truth = Disk()
        self.starts = 0
        self.seen: Seen | None = None
        self.highest = (0, 0, 0)  # epoch, attempt and round that it has gone by: what the checker knows of this disk
        self.told = 0.0  # the highest epsilon that it has trained under: the same
        self._damaged: Outbox | None = None

    def count_start(self) -> int:
        self.starts += 1
        return self.starts

    def load(self) -> Outbox | None:
        if self._damaged is not None and self._damaged is self.truth.outbox:
            self.truth.damaged()
        return self.truth.outbox

    def save(self, outbox: Outbox, slots: Mapping[str, Slot]) -> None:
        self.transact(lambda: self.truth.save(outbox, slots))

    def mark_counted(self, attempt: int) -> None:
        self.transact(lambda: self.truth.mark_counted(attempt))

    def save_seen(self, seen: Seen) -> None:
        def write() -> None:
            self.seen = seen

        self.transact(write)

    def save_base(self, numbers: bytes) -> None:
        """As edgefl_agent.base_file.BaseFile: a disk that fails is no error."""

        def write() -> None:
            self.truth.base = numbers

        with suppress(StoreError):
            self.transact(write)

    def drop(self, applied: bool) -> None:
        self.transact(lambda: self.truth.drop(applied))

    def flip(self, bit: int) -> None:
        """Damage the base, or the saved update, which shows when it is loaded, or the residual."""
        left = self.truth.slots.get("residual")
        if bit % 3 == 0 and self.truth.base:
            self.truth.base = flipped(self.truth.base, bit)
        elif bit % 2 or left is None:
            self._damaged = self.truth.outbox
        else:
            self.truth.slots["residual"] = replace(left, blob=flipped(left.blob, bit))


class AggregatorDisk(FailingDisk):
    """As edgefl_broker.store.AggregatorStore. `models` are (version, SHA-256, bytes), in order; `states`
    has the bytes of the strategy's state, by version."""

    def __init__(self, run: str) -> None:
        self.run, self.start = run, 0
        self.rounds: list[RoundRecord] = []
        self.models: list[tuple[int, str, bytes]] = []
        self.states: dict[int, bytes] = {}
        self.late: dict[tuple[str, int], LateUpdate] = {}
        self.orders: dict[str, Order] = {}  # by name
        self.suspects: dict[str, Suspect] = {}
        self.paused: dict[str, str] = {}
        self.asked: SavedAsk | None = None
        self.clip: ClipState | None = None
        self.ledger: Ledger | None = None
        self.told_attempt: Callable[[int], None] = lambda attempt: None
        self.told_ledger: Callable[[Ledger], None] = lambda ledger: None
        self.told_ask: Callable[[SavedAsk], None] = lambda saved: None
        self.told = _nobody  # of what has become durable, whether or not the caller knows

    def copy(self) -> AggregatorDisk:
        """Another disk with the same on it."""
        other = AggregatorDisk(self.run)
        other.start, other.rounds, other.models = self.start, list(self.rounds), list(self.models)
        other.late, other.states = dict(self.late), dict(self.states)
        other.suspects, other.paused = dict(self.suspects), dict(self.paused)
        other.asked, other.clip, other.ledger = self.asked, self.clip, self.ledger
        return other

    def resume(self, params: np.ndarray) -> State:
        if not self.models:
            self._insert(0, params_to_bytes(params), b"")
        newest = self.models[-1][0]
        version, _, blob = next(filter(_is_sound, reversed(self.models)))
        state = self.states[version]
        if version != newest:
            version = newest + 1
            self._insert(version, blob, state)
        params = params_from_bytes(blob)
        round = self.rounds[-1].round + 1 if self.rounds else 1
        return State(self.run, self.start + 1, round, version, params, *unpack(state))

    def _insert(self, version: int, blob: bytes, state: bytes) -> None:
        self.states[version] = state
        self.models.append((version, hashlib.sha256(blob).hexdigest(), blob))

    def model(self, version: int) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        """Params and the strategy's state of a version that is kept, and sound."""
        found = next((m for m in self.models if m[0] == version and _is_sound(m)), None)
        return None if found is None else (params_from_bytes(found[2]), unpack(self.states[version])[1])

    def save_attempt(self, attempt: int) -> None:
        def write() -> None:
            self.start = attempt
            self.told_attempt(attempt)

        self.transact(write)

    def save_late(self, update: LateUpdate) -> None:
        self.transact(lambda: self.late.update({(update.device, update.round): update}))

    def save_suspects(self, suspects: Mapping[str, Suspect]) -> None:
        saved = msgspec.json.decode(msgspec.json.encode(suspects), type=dict[str, Suspect])

        def write() -> None:
            self.suspects = saved

        self.transact(write)

    def save_paused(self, paused: Mapping[str, str]) -> None:
        saved = dict(paused)

        def write() -> None:
            self.paused = saved

        self.transact(write)

    def save_ask(self, saved: SavedAsk) -> None:
        stored = SavedAsk.from_bytes(saved.to_bytes())

        def write() -> None:
            self.asked = stored
            self.told_ask(stored)

        self.transact(write)

    def save_ledger(self, ledger: Ledger) -> None:
        def write() -> None:
            self.ledger = newest(self.ledger, ledger)
            self.told_ledger(ledger)

        self.transact(write)

    def commit(
        self,
        record: RoundRecord,
        params: np.ndarray | None,
        drop: Sequence[tuple[str, int]] = (),
        state: bytes = b"",
        clip: ClipState | None = None,
    ) -> None:
        self.transact(lambda: self._commit(record, params, drop, state, clip))

    def _commit(
        self,
        record: RoundRecord,
        params: np.ndarray | None,
        drop: Sequence[tuple[str, int]],
        state: bytes,
        clip: ClipState | None,
    ) -> None:
        self.rounds.append(record)
        self.asked, self.clip = None, self.clip if clip is None else clip
        for key in drop:
            del self.late[key]  # all of them are there
        if params is not None:
            self._insert(record.version, params_to_bytes(params), state)
            self.models = [m for m in self.models if m[0] > record.version - KEPT_MODELS]
        self.told(record, params)

    def recent(self, count: int) -> list[RoundRecord]:
        return self.rounds[-count:] if count else []

    @property
    def newest_is_damaged(self) -> bool:
        return bool(self.models) and not _is_sound(self.models[-1])

    def flip(self, bit: int) -> None:
        """Damage the newest model, if the one before it is sound."""
        if len(self.models) > 1 and _is_sound(self.models[-2]):
            version, sha256, blob = self.models[-1]
            self.models[-1] = (version, sha256, flipped(blob, bit))


def _nobody(record: RoundRecord, params: np.ndarray | None) -> None:
    """Who is told of commits until somebody listens."""


def _is_sound(model: tuple[int, str, bytes]) -> bool:
    return hashlib.sha256(model[2]).hexdigest() == model[1]


def flipped(blob: bytes, bit: int) -> bytes:
    """`blob` with one bit changed; `bit` is taken modulo its length."""
    index, shift = divmod(bit % (8 * len(blob)), 8)
    return blob[:index] + bytes([blob[index] ^ 1 << shift]) + blob[index + 1 :]
