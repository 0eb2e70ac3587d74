"""RoundIntake: the updates of one round as their parts come in, asked for as fast as there is room. No I/O.

A device sends its first parts unasked, the others when it is asked. Who can't be admitted yet waits for its turn; what
had come of its update is dropped and asked for again, so memory stays within a budget whoever sends how much.

So that the MQTT broker's queue does not overflow either, at most a window of the round's parts is owed at any time: who
is next, for its first parts or for more, for the first time or again, is asked when they fit. One may always be asked.
The window grows with every part that comes and is halved when some are lost (additive increase, multiplicative
decrease: Chiu and Jain 1989, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance").

One assembler a device; its bounds come from the plan, the codec and the round's mode. Part of RoundCoordinator.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..codecs import Codec
from ..errors import ProtocolError
from ..protocol.envelope import Envelope, Kind
from ..protocol.messages import UpdateHeader
from ..protocol.parts import Assembler

QUIET_S = 5.0  # a device whose parts stop coming for so long is asked for the rest
PATIENCE = 3  # times that it is asked in vain before its place is given to who waits
BUDGET_BYTES = 256 * 2**20  # of updates that are not whole yet
WINDOW = 500  # parts owed at first: half of what mosquitto queues for a client by default
GROWTH = 0.1  # of the window, with each part that comes
REQUEST = 50  # parts that a device is asked for at a time


@dataclass(slots=True)
class Arrival:
    """An update that is under way. `owed` parts of it have been sent unasked or asked for, and not come yet; the device
    was asked `in_vain` times since the last one came."""

    assembler: Assembler
    owed: int
    in_vain: int = 0


class RoundIntake:
    """Parts in, whole updates out. `deferred` counts those that had to wait for room."""

    def __init__(
        self, codec: Codec, max_payload: int, federation_hash: int, round: int, version: int, unasked: int = 1
    ) -> None:
        self.deferred = 0
        self.buffered = 0  # bytes of updates that are not whole yet
        self._codec = codec
        self._max_total = UpdateHeader.MAX_SIZE + max_payload
        self._federation, self._round, self._version = federation_hash, round, version
        self._unasked = unasked
        self._arrivals: dict[str, Arrival] = {}
        # By whose turn it is; the first is found at once, where a dict would walk over all who were before it.
        self._waiting: OrderedDict[str, Assembler] = OrderedDict()  # their first parts, without the bytes
        self._to_ask: OrderedDict[str, None] = OrderedDict()  # under way, nothing owed
        self._to_ask_again: OrderedDict[str, None] = OrderedDict()  # who was quiet: after those who wait
        self._quiet_at: OrderedDict[str, float] = OrderedDict()  # all others that are under way
        self._reserved = 0  # bytes of all that are under way, once they are whole
        self._owed = 0
        self._window = float(WINDOW)

    @property
    def under_way(self) -> int:
        """How many updates have begun to come."""
        return len(self._arrivals) + len(self._waiting)

    @property
    def wake_at(self) -> float | None:
        """When the next device will have been quiet for too long."""
        return next(iter(self._quiet_at.values()), None)

    @property
    def waiting(self) -> int:
        """How many updates wait for room."""
        return len(self._waiting)

    def add(self, device: str, envelope: Envelope, now: float) -> bytes | None:
        """The whole update once its last part is in; ProtocolError if the part is not of this round. See `ask`."""
        if envelope.codec != self._codec.wire_id:
            raise ProtocolError(
                f"update in codec number {envelope.codec}, the manifest says {self._codec.name}: dropped"
            )
        arrival = self._arrivals.get(device)
        if arrival and arrival.assembler.total != envelope.total:
            arrival = None  # another update, which has to find room for itself
        assembler = arrival.assembler if arrival else self._assembler()
        before = assembler.buffered
        whole = assembler.add(envelope)
        if arrival:
            self.buffered += assembler.buffered - before
        if whole:
            self.drop(device)
            return assembler.blob()
        if arrival is None:
            arrival = self._begin(device, assembler, min(self._unasked, envelope.parts))
        if arrival is not None:
            self._came(device, arrival, now)
        return None

    def _assembler(self) -> Assembler:
        return Assembler(
            kind=Kind.UPDATE, federation=self._federation, round=self._round, version=self._version,
            max_total=self._max_total,
        )  # fmt: skip

    def _begin(self, device: str, assembler: Assembler, owed: int) -> Arrival | None:
        """Admit an update in place of its device's last one, or let it wait; one may always be under way."""
        if device in self._waiting:
            return None
        self.drop(device)
        if self._waiting or not self._has_room(assembler, owed):
            assembler.clear()
            self._waiting[device] = assembler
            self.deferred += 1
            return None
        return self._admit(device, assembler, owed)

    def _has_room(self, assembler: Assembler, owed: int = 0) -> bool:
        """Whether an update may be under way too, whose device sends `owed` parts unasked."""
        if not self._arrivals:
            return True
        return self._fits(assembler) and self._may_owe(max(owed, min(assembler.parts, REQUEST)))

    def _fits(self, assembler: Assembler) -> bool:
        return self._reserved + assembler.total <= BUDGET_BYTES

    def _may_owe(self, parts: int) -> bool:
        return self._owed == 0 or self._owed + parts <= self._window

    def _admit(self, device: str, assembler: Assembler, owed: int) -> Arrival:
        arrival = self._arrivals[device] = Arrival(assembler, owed)
        self._reserved += assembler.total
        self.buffered += assembler.buffered
        self._owed += owed
        return arrival

    def _came(self, device: str, arrival: Arrival, now: float) -> None:
        """One more part of an update that is not whole yet."""
        self._owe(arrival, max(0, arrival.owed - 1))
        self._window += GROWTH
        arrival.in_vain = 0
        if arrival.owed:
            self._expect(device, now)
        else:
            self._quiet_at.pop(device, None)
            self._to_ask_again.pop(device, None)
            self._to_ask[device] = None

    def _owe(self, arrival: Arrival, parts: int) -> None:
        self._owed += parts - arrival.owed
        arrival.owed = parts

    def _expect(self, device: str, now: float) -> None:
        self._quiet_at[device] = now + QUIET_S
        self._quiet_at.move_to_end(device)

    def drop(self, device: str) -> None:
        """Drop what has come from `device`."""
        arrival = self._arrivals.pop(device, None)
        self._quiet_at.pop(device, None)
        self._to_ask.pop(device, None)
        self._to_ask_again.pop(device, None)
        self._waiting.pop(device, None)
        if arrival is not None:
            self._reserved -= arrival.assembler.total
            self.buffered -= arrival.assembler.buffered
            self._owed -= arrival.owed

    def drop_all(self) -> None:
        """Drop all that has come."""
        for device in [*self._arrivals, *self._waiting]:
            self.drop(device)

    def ask(self, now: float, is_present: Callable[[str], bool]) -> list[tuple[str, list[int]]]:
        """(device, parts) of each that is to be asked now: its turn has come, or it was quiet for too long.

        Who is not present is not asked (requests would pile up in its session), and does not wait for a place.
        """
        self._quiet(now)
        if not self._to_ask and not self._waiting and not self._to_ask_again:  # as with nearly every part
            return []
        return [(device, self._request(device, now)) for device in self._turns(now, is_present)]

    def _turns(self, now: float, is_present: Callable[[str], bool]) -> Iterator[str]:
        """Who is to be asked, one by one, while there is room: those who have begun before those who wait, and at last
        those who were quiet: of many who never answer, none keeps the others waiting for more than its first turn."""
        yield from self._next_of(self._to_ask, now, is_present)
        while self._waiting and not self._to_ask and self._has_room(next(iter(self._waiting.values()))):
            device, assembler = self._waiting.popitem(last=False)
            if is_present(device):
                self._admit(device, assembler, 0)
                yield device
        if not self._to_ask and not (self._waiting and self._fits(next(iter(self._waiting.values())))):
            yield from self._next_of(self._to_ask_again, now, is_present)

    def _next_of(self, queue: OrderedDict[str, None], now: float, is_present: Callable[[str], bool]) -> Iterator[str]:
        while queue and self._may_owe(self._wanted(next(iter(queue)))):
            device, _ = queue.popitem(last=False)
            if is_present(device):
                yield device
            else:
                self._expect(device, now)

    def _quiet(self, now: float) -> None:
        """Those whose parts have stopped coming: to be asked again, or to make way for those who wait."""
        lost = 0
        while self._quiet_at and next(iter(self._quiet_at.values())) <= now:
            device, _ = self._quiet_at.popitem(last=False)
            arrival = self._arrivals[device]
            lost += arrival.owed
            self._owe(arrival, 0)
            arrival.in_vain += 1
            if self._waiting and arrival.in_vain > PATIENCE:
                self.drop(device)
            else:
                self._to_ask_again[device] = None
        if lost:
            self._window = max(float(WINDOW), self._window / 2)

    def _wanted(self, device: str) -> int:
        """How many parts the device is to be asked for next."""
        return min(self._arrivals[device].assembler.lacks, REQUEST)

    def _request(self, device: str, now: float) -> list[int]:
        arrival = self._arrivals[device]
        parts = arrival.assembler.missing()[:REQUEST]
        self._owe(arrival, len(parts))
        self._expect(device, now)
        return parts
