"""Counting: whole updates, from their bytes to the strategy's sum. Each gets a receipt. No I/O. Part of Reception.

Nothing is added before all of an update has been checked; a refused one leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..codecs import Codec
from ..errors import CodecError, ProtocolError
from ..machine import Note
from ..protocol.topics import UpdateTopic
from ..protocol.update_header import UpdateHeader
from ..settings import Mode
from ..strategies import Strategy, Update
from .closed_rounds import ClosedRound
from .credits import header_for
from .earlier_rounds import EarlierRounds
from .events import Action, LateUpdate, SaveLate
from .held_back import HeldBack
from .late_table import LateTable
from .presence import Presence
from .receipts import EARNED, NOT_KEPT, Receipts, note_of
from .signing import Open
from .tally import Tally


class Counting:
    """`held` knows which updates came when no round could receive them."""

    def __init__(
        self, receipts: Receipts, codec: Codec, strategy: Strategy, *, earlier: EarlierRounds, presence: Presence,
        held: HeldBack, signing: Open,
    ) -> None:  # fmt: skip
        self.late_table = LateTable()
        self._receipts, self._codec, self._strategy = receipts, codec, strategy
        self._closed, self._credits, self._standing = earlier.closed, earlier.credits, earlier.standing
        self._presence, self._held, self._signing = presence, held, signing

    def count(self, tally: Tally, where: UpdateTopic, blob: bytes, now: float) -> list[Action]:
        """Add a whole update of the open round."""
        try:
            header = self._add(tally.mode, where.device, blob, 0)
        except (ProtocolError, CodecError) as error:
            tally.reject(where.device)
            return self._receipts.reject(where, error)
        tally.count(where.device, header)
        self._earn(tally, where, now - tally.opened_at, counted=True)
        return [note_of(where, header), self._receipts.counted(where, 0)]

    def fold(
        self, tally: Tally | None, own: ClosedRound, where: UpdateTopic, blob: bytes, *, now: float, into: int
    ) -> list[Action]:
        """Add a whole late update to the open round, or have the host keep it for the next one, which adds it when it
        opens. It is saved before its receipt, at which the device drops it."""
        late = LateUpdate(where.device, where.round, own.version, self._codec.wire_id, blob)
        if why := self.late_table.refuses(late):
            return self._refuse(tally, where, late, why, now=now, into=into)
        try:
            if tally is None:
                header = self._credits.check(where.round, blob)
            else:
                header = self._add("train", where.device, blob, tally.version - own.version)
        except (ProtocolError, CodecError) as error:
            return self._receipts.reject(where, error)
        if tally is not None:
            own.count(where.device, into)
            tally.fold(where.device, where.round, header)
        self._earn(tally, where, self._took_s(where, now), counted=True)
        self.late_table.keep(late)
        return [note_of(where, header), SaveLate(late), self._receipts.counted(where, into)]

    def _refuse(
        self, tally: Tally | None, where: UpdateTopic, late: LateUpdate, why: str, *, now: float, into: int
    ) -> list[Action]:
        """A late update for which the host has no room earns waiting all the same."""
        try:
            self._credits.check(where.round, late.blob)
        except (ProtocolError, CodecError) as error:
            return self._receipts.reject(where, error)
        self._earn(tally, where, self._took_s(where, now), counted=False)
        note = Note("info", f"round {where.round}: late update of {where.device} is not kept: {why}")
        return [note, self._receipts.too_late(where, f"{NOT_KEPT}: {why}", into=into)]

    def credit(self, tally: Tally | None, where: UpdateTopic, blob: bytes, *, now: float, into: int) -> list[Action]:
        """A whole late update that counts in no round, of a device that lacks waiting. `into` is open, or the next."""
        try:
            self._credits.check(where.round, blob)
        except (ProtocolError, CodecError) as error:
            return self._receipts.reject(where, error)
        self._earn(tally, where, self._took_s(where, now), counted=False)
        text = (
            f"round {where.round}: update of {where.device} came too late to count; rounds wait for this device again"
        )
        return [Note("info", text), self._receipts.too_late(where, EARNED, into=into)]

    def reload(self, tally: Tally, updates: Iterable[LateUpdate]) -> list[Action]:
        """Add late updates again that were saved in a round which was abandoned, or whose aggregator died. Their bytes
        were counted when they arrived."""
        out: list[Action] = []
        for late in self.late_table.reload(updates):
            try:
                self._reload(tally, late)
            except (ProtocolError, CodecError) as error:
                tally.spoil(late.device, late.round)
                out.append(Note("error", f"late update of {late.device}, round {late.round}, is dropped: {error}"))
        return out

    def learn(self, updates: Iterable[LateUpdate]) -> None:
        """Know which late updates the host keeps, while no round adds them."""
        for _ in self.late_table.reload(updates):
            pass

    def _reload(self, tally: Tally, late: LateUpdate) -> None:
        if tally.is_full(late.device):
            return  # it stays with the host, and goes into another round
        own = self._closed.get(late.round)
        if late.codec != self._codec.wire_id:
            raise CodecError(f"it is in codec number {late.codec}, the manifest says {self._codec.name}")
        counted_in = None if own is None else own.counted_in(late.device)
        if counted_in is not None:
            raise ProtocolError(f"the device has counted in round {counted_in}")
        self._signing.check(late.device, late.round, late.version, late.blob)  # it may have been revoked since
        header = self._add("train", late.device, late.blob, tally.version - late.version)
        if own is not None:
            own.count(late.device, tally.round)
        self._standing.count(late.device, late.round, counted=True)
        tally.receive(late.device, 0)
        tally.fold(late.device, late.round, msgspec.structs.replace(header, bytes_down=0))

    def _earn(self, tally: Tally | None, where: UpdateTopic, seconds: float | None, counted: bool) -> None:
        """A whole valid update has come: its device has earned that rounds wait for it."""
        device = where.device
        self._standing.report(device, where.round, seconds, counted, resumed=tally is not None and tally.resumed)
        if tally is None:
            return
        tally.note_time(device, seconds)
        if where.round != tally.round:
            tally.set_present(device, self._presence.can_be_asked(device), self._standing.is_worth(device))

    def _took_s(self, where: UpdateTopic, now: float) -> float | None:
        """How long a late update took. What was held back had come before: its device is not slow, rounds were."""
        return self._credits.seconds(where.round, self._held.came_at(where.device, where.round, now))

    def _add(self, mode: Mode, device: str, blob: bytes, staleness: int) -> UpdateHeader:
        """Add one whole update to the strategy; ProtocolError or CodecError, with nothing changed."""
        header = header_for(mode, blob)
        if mode == "train":
            payload = memoryview(blob)[header.size :]
            self._strategy.add(Update(device, header.num_examples, self._codec, payload, staleness))
        return header
