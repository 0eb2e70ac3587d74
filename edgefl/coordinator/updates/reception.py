"""Reception: updates, from their parts to whole ones, which counting.py adds up. No I/O.

Part of RoundCoordinator, which opens and closes rounds.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...codecs import Codec
from ...errors import ProtocolError
from ...machine import Publish, Received
from ...protocol.envelope import Envelope
from ...protocol.inbox import Missing
from ...protocol.messages import encode
from ...protocol.topics import Topics, UpdateTopic
from ...strategies import Strategy
from ..devices.presence import Presence
from ..events import Action, LateUpdate
from ..signing import Open
from .admission import Admission
from .closed_rounds import ClosedRound
from .counting import Counting
from .earlier_rounds import EarlierRounds
from .held_back import HeldBack
from .intake import BUDGET_BYTES, RoundIntake
from .receipts import REFUSED, Receipts
from .tally import Tally


class Reception:
    """`late` counts parts for closed rounds. `tells`: devices ask whether an update has counted whose receipt was lost
    (device/report/saved_update.py), and are told at its first part."""

    def __init__(
        self, topics: Topics, codec: Codec, strategy: Strategy, *, earlier: EarlierRounds, presence: Presence,
        admission: Admission, signing: Open, tells: bool = False,
    ) -> None:  # fmt: skip
        self._tells = tells
        self.closed, self.credits = earlier.closed, earlier.credits
        self._standing = earlier.standing
        self._held = HeldBack()
        self.receipts = Receipts(topics, admission.refused, signing.run)
        self._signing = signing
        self._whole = Counting(
            self.receipts, codec, strategy, earlier=earlier, presence=presence, held=self._held,
            admission=admission, signing=signing,
        )  # fmt: skip
        self.late_table = self._whole.late_table
        self.late = 0
        self._topics = topics
        self._presence = presence

    def between(self, event: Received, now: float, *, round: int) -> list[Action]:
        """A part of an update has come while no round is open; the next one is `round`. Rounds may be so short, and so
        far apart, that an update over a slow link never comes while one is open."""
        where = self._topics.parse_update(event.topic)
        self.late += 1
        own = self.closed.get(where.round)
        if own is not None:
            return self._part(None, own, where, event, now, round=round)
        if where.round < round and not self._standing.is_worth(where.device):
            return self._credit(None, where, event, now, round=round)
        if self._tells and where.round < round:
            return self._tell(where, event, round)
        self._held.add(where.device, where.round, now)
        return []

    def receive(self, tally: Tally | None, event: Received, now: float) -> list[Action]:
        """Add one part of an update; `tally` is None if none can be added. ProtocolError if topic and part disagree."""
        where = self._topics.parse_update(event.topic)
        own = None if tally is None else self._round(tally, where.round)
        if tally is None or own is None:
            self.late += 1
            if tally is None:
                self._held.add(where.device, where.round, now)
            elif where.device in tally.opening.unearned:
                return self._credit(tally, where, event, now, round=tally.round)
            elif self._may_be_added(where):  # by the next round that trains: this one does not
                self._held.add(where.device, where.round, now)
            elif self._tells and where.round < tally.round:
                return self._tell(where, event, tally.round)
            return []
        return self._part(tally, own, where, event, now, round=tally.round)

    def _part(
        self, tally: Tally | None, own: Tally | ClosedRound, where: UpdateTopic, event: Received, now: float, *,
        round: int,
    ) -> list[Action]:  # fmt: skip
        """Add one part of an update of the round `own`; `round` is open, or the next one if `tally` is None."""
        envelope, device = _envelope(where, event), where.device
        if (misfit := _unfit(own, where, envelope)) is not None:
            if own is tally or envelope.part:
                raise misfit
            # Else its device would repeat the update as long as late ones are accepted.
            return self.receipts.reject(where, misfit, envelope.version)
        self._presence.prove(device)
        if tally is not None:
            tally.receive(device, len(event.payload))
        folded = own.counted_in(device)
        if folded is not None:
            return [self._settled(own, where, folded, round)] if envelope.part == 0 else []
        if tally is not None and tally.is_full(device):
            self._held.add(device, where.round, now)
            return []
        self._make_room(tally, device, where.round)
        try:
            blob = own.intake.add(device, envelope, now)
        except ProtocolError as error:
            if own is tally:
                raise
            return self._of_another_kind(error, where, event, round)
        if blob is None:
            return self.ask(tally, now)
        self._signing.check(device, where.round, own.version, blob)
        if isinstance(own, Tally):
            return [*self._whole.count(own, where, blob, now), *self.ask(tally, now)]
        return [*self._whole.fold(tally, own, where, blob, now=now, into=round), *self.ask(tally, now)]

    def _settled(self, own: Tally | ClosedRound, where: UpdateTopic, folded: int, into: int) -> Publish:
        """What a device is told whose update has counted: in the round `folded`, 0 for its own, which is open."""
        if isinstance(own, ClosedRound) and own.refused and folded == where.round:
            return self.receipts.too_late(where, REFUSED, into=into)
        return self.receipts.counted(where, folded)

    def _credit(
        self, tally: Tally | None, where: UpdateTopic, event: Received, now: float, *, round: int
    ) -> list[Action]:
        """Receive a part of a late update that counts in no round, of a device that lacks waiting (credits.py). `round`
        is open, or the next one."""
        device, number = where.device, where.round
        if number >= round:
            return []
        envelope = _envelope(where, event)
        if self.late_table.keeps(device, number):
            return self._tell(where, event, round)
        if self._standing.settled(device, number) is not None or not self.credits.knows(number, envelope.version):
            return self._tell(where, event, round)
        try:
            blob = self.credits.add(device, envelope, now)
        except ProtocolError as error:
            return self._of_another_kind(error, where, event, round)
        if blob is None:
            return self.ask(tally, now)
        self._signing.check(device, number, envelope.version, blob)
        return self._whole.credit(tally, where, blob, now=now, into=round)

    def _may_be_added(self, where: UpdateTopic) -> bool:
        """Whether devices ask, and the update of a closed round is in no sum, and not too late for one: to say that it
        was would have its device drop what the update leaves."""
        own = self.closed.get(where.round)
        return self._tells and own is not None and own.counted_in(where.device) is None

    def _tell(self, where: UpdateTopic, event: Received, into: int) -> list[Action]:
        """At the first part of an update of a round that is over: whether it counted there, or waits for a round that
        trains."""
        if _envelope(where, event).part:
            return []
        if self.late_table.keeps(where.device, where.round):
            return [self.receipts.counted(where, into)]
        counted = self._standing.settled(where.device, where.round)
        return [self.receipts.counted(where, where.round) if counted else self.receipts.too_late(where, into=into)]

    def _of_another_kind(self, error: ProtocolError, where: UpdateTopic, event: Received, into: int) -> list[Action]:
        """An update of an earlier round is longer than that round's can be. The round was of another kind if this
        aggregator was restored from a backup since. So that proves nothing against the device, which would repeat the
        update: it is told that the round is over."""
        if error.code != "size":
            raise error
        return [self.receipts.drop(where.device, event.topic, error), *self._tell(where, event, into)]

    def ask_held(self, tally: Tally) -> list[Action]:
        """A round has opened: ask for the updates that no round could receive meanwhile."""
        out: list[Action] = []
        for device, number in self._held.take():
            if self._round(tally, number) is not None or device in tally.opening.unearned:
                out.append(Publish(self._topics.inbox(device), encode(Missing(number, [0]))))
        return out

    def _round(self, tally: Tally, number: int) -> Tally | ClosedRound | None:
        """The round that an update is for: the open one, or a closed one whose late updates the open one accepts."""
        if number == tally.round:
            return tally
        return self.closed.get(number) if tally.mode == "train" else None

    def _make_room(self, tally: Tally | None, device: str, round: int) -> None:
        """Drop parts of older updates by this device, and late updates, oldest first, where memory is short."""
        partial, open_bytes = self.closed.partial(), 0 if tally is None else tally.intake.buffered
        for number, intake in partial.items():
            if number < round:
                intake.drop(device)
        while partial and open_bytes + sum(i.buffered for i in partial.values()) > BUDGET_BYTES:
            partial.pop(next(iter(partial))).drop_all()
        credited = sum(i.buffered for i in self.credits.partial().values())
        if credited and open_bytes + credited > BUDGET_BYTES:
            self.credits.drop_all()

    def _intakes(self, tally: Tally | None) -> list[tuple[int, RoundIntake]]:
        """Where updates are arriving, by round; None for `tally`: while no round is open."""
        found = [*self.closed.partial().items(), *self.credits.partial().items()]
        return found if tally is None else [*found, (tally.round, tally.intake)]

    def reload(self, tally: Tally, updates: Iterable[LateUpdate], now: float) -> list[Action]:
        """Add the late updates again that the host has kept."""
        return self._whole.reload(tally, updates, now)

    def settle(self, tally: Tally, now: float) -> list[Action]:
        """The round closes: add the updates that have waited for that."""
        return self._whole.settle(tally, now)

    def drop(self, tally: Tally | None, device: str) -> None:
        """Drop what has arrived of the device's updates."""
        for _, intake in self._intakes(tally):
            intake.drop(device)
        self.credits.drop(device)

    def learn(self, updates: Iterable[LateUpdate]) -> None:
        """Know which late updates the host keeps, while no round adds them."""
        self._whole.learn(updates)

    def wake_at(self, tally: Tally | None) -> float | None:
        """When the next device will have been quiet for too long; None for `tally`: while no round is open."""
        found = [at for _, intake in self._intakes(tally) if (at := intake.wake_at) is not None]
        return min(found) if found else None

    def ask(self, tally: Tally | None, now: float) -> list[Action]:
        """Requests for the parts that are due; None for `tally`: while no round is open."""
        out: list[Action] = []
        for round, intake in self._intakes(tally):
            for device, parts in intake.ask(now, self._presence.is_present):
                out.append(Publish(self._topics.inbox(device), encode(Missing(round, parts))))
        return out


def _envelope(where: UpdateTopic, event: Received) -> Envelope:
    """The part in a message; ProtocolError unless it is what the topic promises."""
    envelope = Envelope.from_bytes(event.payload)
    if (envelope.round, envelope.part) != (where.round, where.part):
        raise ProtocolError(f"envelope of round {envelope.round}, part {envelope.part} on another's topic: dropped")
    return envelope


def _unfit(own: Tally | ClosedRound, where: UpdateTopic, envelope: Envelope) -> ProtocolError | None:
    """Why no update of this device can count in the round, whatever its other parts bring."""
    if not own.cohort.asks(where.device):
        return ProtocolError(f"an update of a device that was not asked in round {where.round}: dropped", "round")
    if own.counted_in(where.device) is None and own.intake.has_other_model(where.device, envelope):
        text = f"an update of round {where.round}, which was opened again with another model: dropped"
        return ProtocolError(text, "round")
    return None
