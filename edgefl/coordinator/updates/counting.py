"""Counting: whole updates, from their bytes to the strategy's sum. Each gets a receipt. No I/O. Part of Reception.

Nothing is added before all of an update has been checked; a refused one leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...codecs import Codec
from ...errors import CodecError, ProtocolError
from ...machine import Note
from ...protocol.signed_update import NotSigned
from ...protocol.topics import UpdateTopic
from ...protocol.update_header import UpdateHeader
from ...settings import Mode
from ...strategies import Strategy
from ..devices.presence import Presence
from ..events import Action, LateUpdate, SaveLate
from ..profile.gathering import Gathering
from ..signing import Open
from .admission import Admission, Judged
from .closed_rounds import ClosedRound
from .earlier_rounds import EarlierRounds
from .held_back import HeldBack
from .influence import TooMuch
from .late_table import LateTable
from .receipts import EARNED, NOT_KEPT, OWES, Receipts, note_of
from .tally import Tally


class Counting:
    """`held` knows which updates came when no round could receive them."""

    def __init__(
        self, receipts: Receipts, codec: Codec, strategy: Strategy, *, earlier: EarlierRounds, presence: Presence,
        held: HeldBack, admission: Admission, signing: Open,
    ) -> None:  # fmt: skip
        self.late_table = LateTable()
        self._receipts, self._codec, self._strategy = receipts, codec, strategy
        self._closed, self._credits, self._standing = earlier.closed, earlier.credits, earlier.standing
        self._presence, self._held, self._admission, self._signing = presence, held, admission, signing

    def count(self, tally: Tally, where: UpdateTopic, blob: bytes, now: float) -> list[Action]:
        """Add a whole update of the open round. ProtocolError for one under terms of before the round was opened again,
        with other keys of a helper: its device has made another, and would take a receipt for the word on that."""
        try:
            judged = self._add(tally.mode, where, blob, 0) if tally.masked is None else self._mask(tally, where, blob)
            if isinstance(tally.gathering, Gathering):
                tally.gathering.add(judged.header, memoryview(blob)[judged.header.size :])
        except (ProtocolError, CodecError) as error:
            if error.code == "terms":
                raise
            tally.reject(where.device)
            return self._reject(where, error, now, tally)
        tally.count(where.device, judged)
        seconds = now - tally.opened_at if tally.gathering is None else None  # it says nothing of training
        self._earn(tally, where, seconds, counted=True)
        return [note_of(where, judged.header), *self._receipts.lowered(where, judged), self._receipts.counted(where, 0)]

    def fold(
        self, tally: Tally | None, own: ClosedRound, where: UpdateTopic, blob: bytes, *, now: float, into: int
    ) -> list[Action]:
        """Add a whole late update to the open round, or have the host keep it for the next one, which adds it when it
        opens. It is saved before its receipt, at which the device drops it."""
        late = LateUpdate(where.device, where.round, own.version, self._codec.wire_id, blob)
        if why := self.late_table.refuses(late):
            return self._refuse(tally, where, late, why, now=now, into=into)
        lowered: list[Action] = []
        try:
            if tally is None:
                header = self._check(where, blob)
            else:
                judged = self._add("train", where, blob, tally.version - own.version)
                header, lowered = judged.header, self._receipts.lowered(where, judged)
        except (ProtocolError, CodecError) as error:
            return self._reject(where, error, now, tally)
        if tally is not None:
            own.count(where.device, into)
            tally.fold(where.device, where.round, judged)
        self._earn(tally, where, self._took_s(where, now), counted=True)
        self.late_table.keep(late)
        return [note_of(where, header), *lowered, SaveLate(late), self._receipts.counted(where, into)]

    def _refuse(
        self, tally: Tally | None, where: UpdateTopic, late: LateUpdate, why: str, *, now: float, into: int
    ) -> list[Action]:
        """A late update for which the host has no room earns waiting all the same."""
        try:
            self._check(where, late.blob)
        except (ProtocolError, CodecError) as error:
            return self._reject(where, error, now)
        self._earn(tally, where, self._took_s(where, now), counted=False)
        return [self._receipts.not_kept(where, why), self._receipts.too_late(where, f"{NOT_KEPT}: {why}", into=into)]

    def credit(self, tally: Tally | None, where: UpdateTopic, blob: bytes, *, now: float, into: int) -> list[Action]:
        """A whole late update that counts in no round, of a device that lacks waiting. `into` is open, or the next."""
        try:
            self._check(where, blob)
        except (ProtocolError, CodecError) as error:
            return self._reject(where, error, now)
        self._earn(tally, where, self._took_s(where, now), counted=False)
        owes = self._standing.owes(where.device)
        reason = OWES.format(owes) if owes else EARNED
        note = Note("info", f"round {where.round}: update of {where.device}: {reason}", "", where.round, where.device)
        return [note, self._receipts.too_late(where, reason, into=into)]

    def reload(self, tally: Tally, updates: Iterable[LateUpdate], now: float) -> list[Action]:
        """Add late updates again that were saved in a round which was abandoned, or whose aggregator died. Their bytes
        were counted when they arrived."""
        out: list[Action] = []
        for late in self.late_table.reload(updates):
            try:
                out += self._reload(tally, late)
            except (ProtocolError, CodecError) as error:
                tally.spoil(late.device, late.round)
                if isinstance(error, TooMuch):  # there was no bound when it came
                    tally.refuse(UpdateTopic(late.device, late.round, 0), error.claim)
                    self._admission.blame(late.device, error, now, round=late.round)
                out.append(self._receipts.drop_late(late, error))
        return out

    def learn(self, updates: Iterable[LateUpdate]) -> None:
        """Know which late updates the host keeps, while no round adds them."""
        for _ in self.late_table.reload(updates):
            pass

    def _reload(self, tally: Tally, late: LateUpdate) -> list[Action]:
        if tally.is_full(late.device):
            return []  # it stays with the host, and goes into another round
        own = self._closed.get(late.round)
        if late.codec != self._codec.wire_id:
            raise CodecError(f"it is in codec number {late.codec}, the manifest says {self._codec.name}")
        counted_in = None if own is None else own.counted_in(late.device)
        if counted_in == tally.round or (late.device, late.round) in tally.folded:
            return []  # it was asked for twice: at the start, and when the round opened
        if counted_in is not None:
            raise ProtocolError(f"the device has counted in round {counted_in}", "replay")
        where = UpdateTopic(late.device, late.round, 0)
        self._signing.check(late.device, late.round, late.version, late.blob)  # it may have been revoked since
        judged = self._add("train", where, late.blob, tally.version - late.version)
        if own is not None:
            own.count(late.device, tally.round)
        self._standing.count(late.device, late.round, counted=True)
        tally.receive(late.device, 0)
        judged = msgspec.structs.replace(judged, header=msgspec.structs.replace(judged.header, bytes_down=0))
        tally.fold(late.device, late.round, judged)
        return self._receipts.lowered(where, judged)

    def settle(self, tally: Tally, now: float) -> list[Action]:
        """The round closes: add the updates that have waited for its own bound on influence."""
        out: list[Action] = []
        for waiting, judged in self._admission.settled():
            where = UpdateTopic(waiting.device, waiting.round, 0)
            try:
                if not isinstance(judged, Judged):
                    raise judged
                assert judged.update is not None
                self._strategy.add(judged.update)
            except (ProtocolError, CodecError) as error:
                out += self._withdraw(tally, where, error, now)
            else:
                tally.settle(where.device, where.round, judged)
                out += self._receipts.lowered(where, judged)
        return out

    def _withdraw(
        self, tally: Tally, where: UpdateTopic, error: ProtocolError | CodecError, now: float
    ) -> list[Action]:
        """An update that has waited does not count after all."""
        own = self._closed.get(where.round)
        if own is not None:
            own.uncount(where.device)
        self._standing.count(where.device, where.round, counted=False)
        tally.withdraw(where.device, where.round)
        return self._reject(where, error, now, tally)

    def _reject(
        self, where: UpdateTopic, error: ProtocolError | CodecError, now: float, tally: Tally | None = None
    ) -> list[Action]:
        if tally is not None and isinstance(error, TooMuch):
            tally.refuse(where, error.claim)
        self._admission.blame(where.device, error, now, round=where.round)
        return self._receipts.reject(where, error)

    def _check(self, where: UpdateTopic, blob: bytes) -> UpdateHeader:
        """The header of a valid late update that is not added now; ProtocolError or CodecError."""
        self._admission.check(self._credits.past(where.round).mode, where.device, blob)
        return self._credits.check(where.round, blob)

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

    def _mask(self, tally: Tally, where: UpdateTopic, blob: bytes) -> Judged:
        """Add one masked update; ProtocolError or CodecError, with nothing changed."""
        assert tally.masked is not None
        header, member = self._admission.check(tally.mode, where.device, blob), self._signing.member(where.device)
        if member is None:
            raise NotSigned(f"device {where.device} is not enrolled, or revoked: rejected")
        tally.masked.add(where.device, memoryview(blob)[header.size :], member.public)
        return Judged(header)

    def _add(self, mode: Mode, where: UpdateTopic, blob: bytes, staleness: int) -> Judged:
        """Add one whole update to the strategy, or have it wait; ProtocolError or CodecError, with nothing changed."""
        judged = self._admission.judge(mode, where.device, blob, staleness)
        if judged.waits:
            self._admission.keep(where, judged, blob)
        elif judged.update is not None:
            self._strategy.add(judged.update)
        return judged
