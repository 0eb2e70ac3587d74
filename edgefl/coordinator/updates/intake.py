"""RoundIntake: the updates of one round, whose parts it asks for as fast as there is room. No I/O.

A device sends its first parts unasked, and the others when it is asked for them. A device that can't be admitted yet
waits for its turn: its parts are dropped, and asked for later. So memory stays within a budget, whatever devices send.

The MQTT broker's queue must not overflow either. A part is *owed* from when it is sent unasked, or asked for, until it
arrives; at most a window of parts is owed at any time. Devices are asked, one after another, when their parts fit; one
device may always be asked. The window grows with every part that arrives, and is halved when parts are lost (additive
increase, multiplicative decrease: Chiu and Jain 1989, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance").

Invariant: each update under way is one Arrival, in exactly one of four queues.

    waiting    not admitted: no bytes are kept, none are owed
    to ask     admitted, and nothing is owed: its turn is next
    expected   admitted, and asked or sending unasked; ordered by when to look whether it has been quiet for too long
    to retry   admitted, but quiet for too long: asked again after all waiting devices

`buffered`, `_reserved` and `_owed` are sums over the admitted ones. Part of RoundCoordinator, one for each round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ...codecs import Codec
from ...errors import ProtocolError
from ...protocol.envelope import Envelope, Kind
from ...protocol.parts import Assembler
from ...protocol.update_header import UpdateHeader

QUIET_S = 5.0  # a device whose parts stop arriving for this long is asked for the rest; longer if its link is slow
GAPS = 2  # of the longest times between its last parts that a device may be quiet
PATIENCE = 3  # requests in vain before a device's place is given to a waiting one
BUDGET_BYTES = 256 * 2**20  # for updates that are not whole yet
WINDOW = 500  # parts owed at first: half of what mosquitto queues for a client by default
GROWTH = 0.1  # of the window, with each part that arrives
REQUEST = 50  # most parts in one request


@dataclass(slots=True, eq=False)
class Arrival:
    """An update under way. `owed`: parts that the device still owes; `in_vain`: requests since its last part came;
    `gap_s`: about the longest time between the last parts, of which the newest came at `came_at`."""

    assembler: Assembler
    came_at: float
    queue: Queue | None = None
    owed: int = 0
    in_vain: int = 0
    gap_s: float = 0.0
    expected_at: float = 0.0  # since when parts are expected
    look_at: float = 0.0

    @property
    def patience_s(self) -> float:
        """How long the device may be quiet: longer if its parts come slowly, and after each request in vain, since
        how slowly they come is not known before the second one."""
        return max(QUIET_S * (1 + self.in_vain), GAPS * self.gap_s)

    def came(self, now: float) -> None:
        """One more part has arrived."""
        self.gap_s = max(self.gap_s / 2, now - self.came_at)
        self.came_at, self.in_vain = now, 0


Queue = OrderedDict[str, Arrival]  # by turn; unlike a dict, it finds its first entry at once after many removals
Requests = list[tuple[str, list[int]]]  # device, parts


class RoundIntake:
    """Parts in, whole updates out. `deferred` counts the updates that had to wait for room, `buffered` the bytes of
    updates that are not whole yet."""

    def __init__(
        self, codec: Codec, max_payload: int, *, federation: int, round: int, version: int, unasked: int = 1
    ) -> None:
        self.deferred = 0
        self.buffered = 0
        self._codec = codec
        self._max_total = UpdateHeader.MAX_SIZE + max_payload
        self._federation, self._round, self._version = federation, round, version
        self._unasked = unasked
        self._arrivals: dict[str, Arrival] = {}
        self._waiting, self._to_ask, self._expected, self._to_retry = Queue(), Queue(), Queue(), Queue()
        self._reserved = 0  # bytes of the admitted updates, once they are whole
        self._owed = 0
        self._window = float(WINDOW)

    @property
    def under_way(self) -> int:
        """How many updates have begun to arrive."""
        return len(self._arrivals)

    @property
    def waiting(self) -> int:
        """How many updates wait for room."""
        return len(self._waiting)

    @property
    def wake_at(self) -> float | None:
        """When to look at the next device that may have been quiet for too long."""
        return next(iter(self._expected.values())).look_at if self._expected else None

    def has_other_model(self, device: str, envelope: Envelope) -> bool:
        """Whether the device trained for this round, but from another model: an aggregator whose newest model was
        damaged opens its round again. False if a right update of the device is under way: this part is an old one."""
        ours = envelope.federation == self._federation and envelope.round == self._round
        return ours and envelope.version != self._version and device not in self._arrivals

    def add(self, device: str, envelope: Envelope, now: float) -> bytes | None:
        """The whole update once its last part has arrived; ProtocolError if the part is not of this round.

        A part makes requests due: see `ask`.
        """
        if envelope.codec != self._codec.wire_id:
            raise ProtocolError(
                f"update in codec number {envelope.codec}, the manifest says {self._codec.name}: dropped", "codec"
            )
        arrival = self._arrivals.get(device)
        if arrival is not None and (arrival.queue is self._waiting or not arrival.assembler.is_cut_like(envelope)):
            arrival = None  # not admitted; or the part is of another update, which has to find room for itself
        assembler = arrival.assembler if arrival else self._assembler()
        before = assembler.buffered
        whole = assembler.add(envelope)
        if arrival:
            self.buffered += assembler.buffered - before
        if whole:
            self.drop(device)
            return assembler.blob()
        if arrival is None:
            arrival = self._begin(device, assembler, min(self._unasked, envelope.parts), now)
        if arrival is not None:
            self._came(device, arrival, now)
        return None

    def _assembler(self) -> Assembler:
        return Assembler(
            kind=Kind.UPDATE, federation=self._federation, round=self._round, version=self._version,
            max_total=self._max_total,
        )  # fmt: skip

    # Room

    def _begin(self, device: str, assembler: Assembler, owed: int, now: float) -> Arrival | None:
        """Admit an update in place of the device's last one, or let it wait."""
        if device in self._waiting:
            return None
        self.drop(device)
        arrival = self._arrivals[device] = Arrival(assembler, now)
        if self._waiting or not self._has_room(assembler, owed):
            assembler.clear()
            self._move(device, arrival, self._waiting)
            self.deferred += 1
            return None
        self._admit(arrival, owed)
        return arrival

    def _has_room(self, assembler: Assembler, owed: int = 0) -> bool:
        """Whether one more update may be admitted, whose device sends `owed` parts unasked; the first always may."""
        if not (self._to_ask or self._expected or self._to_retry):
            return True
        return self._fits(assembler) and self._may_owe(max(owed, min(assembler.parts, REQUEST)))

    def _fits(self, assembler: Assembler) -> bool:
        return self._reserved + assembler.total <= BUDGET_BYTES

    def _may_owe(self, parts: int) -> bool:
        return self._owed == 0 or self._owed + parts <= self._window

    def _admit(self, arrival: Arrival, owed: int) -> None:
        self._reserved += arrival.assembler.total
        self.buffered += arrival.assembler.buffered
        self._owe(arrival, owed)

    def drop(self, device: str) -> None:
        """Drop the device's update."""
        arrival = self._arrivals.pop(device, None)
        if arrival is None or arrival.queue is None:
            return
        if arrival.queue is not self._waiting:
            self._reserved -= arrival.assembler.total
            self.buffered -= arrival.assembler.buffered
            self._owe(arrival, 0)
        del arrival.queue[device]

    def drop_all(self) -> None:
        """Drop every update."""
        for device in list(self._arrivals):
            self.drop(device)

    # Turns

    def _came(self, device: str, arrival: Arrival, now: float) -> None:
        """One more part of an update that is not whole yet."""
        self._owe(arrival, max(0, arrival.owed - 1))
        self._window += GROWTH
        arrival.came(now)
        if arrival.owed:
            self._expect(device, arrival, now)
        elif arrival.queue is not self._to_ask:
            self._move(device, arrival, self._to_ask)

    def _owe(self, arrival: Arrival, parts: int) -> None:
        self._owed += parts - arrival.owed
        arrival.owed = parts

    def _expect(self, device: str, arrival: Arrival, now: float) -> None:
        arrival.expected_at = now
        self._look_later(device, arrival, now)

    def _look_later(self, device: str, arrival: Arrival, now: float) -> None:
        arrival.look_at = now + QUIET_S
        self._move(device, arrival, self._expected)

    def _move(self, device: str, arrival: Arrival, queue: Queue) -> None:
        """To the end of `queue`, from the one that it stands in."""
        if arrival.queue is not None:
            del arrival.queue[device]
        queue[device] = arrival
        arrival.queue = queue

    def ask(self, now: float, is_present: Callable[[str], bool]) -> Requests:
        """The requests that are due: devices whose turn has come while there is room.

        Devices under way come before waiting devices; devices that were quiet come last, so that many which never
        answer keep no other one from its first turn. A device that is not present is not asked, since requests would
        pile up in its session, and does not wait for a place.
        """
        self._retry_quiet(now)
        out: Requests = []
        if not self._to_ask and not self._waiting and not self._to_retry:  # as with nearly every part
            return out
        self._ask_next(self._to_ask, now, is_present, out)
        while self._waiting and not self._to_ask and self._has_room(_first(self._waiting)):
            device, arrival = next(iter(self._waiting.items()))
            if is_present(device):
                self._admit(arrival, 0)
                out.append(self._request(device, arrival, now))
            else:
                self.drop(device)
        if not self._to_ask and not (self._waiting and self._fits(_first(self._waiting))):
            self._ask_next(self._to_retry, now, is_present, out)
        return out

    def _ask_next(self, queue: Queue, now: float, is_present: Callable[[str], bool], out: Requests) -> None:
        while queue and self._may_owe(min(_first(queue).lacks, REQUEST)):
            device, arrival = next(iter(queue.items()))
            if is_present(device):
                out.append(self._request(device, arrival, now))
            else:
                arrival.expected_at = now + QUIET_S - arrival.patience_s  # look whether it is back
                self._look_later(device, arrival, now)

    def _request(self, device: str, arrival: Arrival, now: float) -> tuple[str, list[int]]:
        parts = arrival.assembler.missing()[:REQUEST]
        self._owe(arrival, len(parts))
        self._expect(device, arrival, now)
        return device, parts

    def _retry_quiet(self, now: float) -> None:
        """Devices whose parts have stopped arriving are asked again, or make way for waiting ones."""
        lost = 0
        while self._expected and next(iter(self._expected.values())).look_at <= now:
            device, arrival = next(iter(self._expected.items()))
            if now < arrival.expected_at + arrival.patience_s:
                self._look_later(device, arrival, now)
                continue
            lost += arrival.owed
            self._owe(arrival, 0)
            arrival.in_vain += 1
            if self._waiting and arrival.in_vain > PATIENCE:
                self.drop(device)
            else:
                self._move(device, arrival, self._to_retry)
        if lost:
            self._window = max(float(WINDOW), self._window / 2)


def _first(queue: Queue) -> Assembler:
    """The parts that have arrived of the first update in `queue`."""
    return next(iter(queue.values())).assembler
