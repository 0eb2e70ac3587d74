"""RoundIntake: the updates of one round as their parts come in, asked for as fast as there is room. No I/O.

A device sends its first parts unasked, the others when it is asked. Who can't be admitted yet waits for its turn; what
had come of its update is dropped and asked for again, so memory stays within a budget whoever sends how much.

So that the MQTT broker's queue does not overflow either, at most a window of parts is owed at any time. It grows with
every part that comes and is halved when some are lost (additive increase, multiplicative decrease: Chiu and Jain 1989,
"Analysis of the Increase and Decrease Algorithms for Congestion Avoidance").

One assembler a device; its bounds come from the plan, the codec and the round's mode. Part of RoundCoordinator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .codecs import Codec
from .errors import ProtocolError
from .protocol.envelope import Envelope, Kind
from .protocol.messages import UpdateHeader
from .protocol.parts import Assembler

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
        self._max_total = UpdateHeader.SIZE + max_payload
        self._federation, self._round, self._version = federation_hash, round, version
        self._unasked = unasked
        self._arrivals: dict[str, Arrival] = {}
        self._waiting: dict[str, Assembler] = {}  # their first parts, without the bytes
        self._quiet_at: dict[str, float] = {}  # the soonest first
        self._to_ask: dict[str, None] = {}
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
        assembler = arrival.assembler if arrival else self._assembler()
        before = assembler.total, assembler.buffered
        whole = assembler.add(envelope)
        if arrival:
            self._reserved += assembler.total - before[0]
            self.buffered += assembler.buffered - before[1]
        if whole:
            self.forget(device)
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
        """Admit an update, or let it wait; one may always be under way."""
        if device in self._waiting:
            return None
        if self._waiting or not self._has_room(assembler):
            assembler.clear()
            self._waiting[device] = assembler
            self.deferred += 1
            return None
        return self._admit(device, assembler, owed)

    def _has_room(self, assembler: Assembler) -> bool:
        if not self._arrivals:
            return True
        fits = self._reserved + assembler.total <= BUDGET_BYTES
        return fits and self._owed + min(assembler.parts, REQUEST) <= self._window

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
        self._expect(device, now)
        if arrival.owed == 0:
            self._to_ask[device] = None

    def _owe(self, arrival: Arrival, parts: int) -> None:
        self._owed += parts - arrival.owed
        arrival.owed = parts

    def _expect(self, device: str, now: float) -> None:
        self._quiet_at.pop(device, None)  # to the end: the order is that of time
        self._quiet_at[device] = now + QUIET_S

    def forget(self, device: str) -> None:
        """Drop what has come from `device`."""
        arrival = self._arrivals.pop(device, None)
        self._quiet_at.pop(device, None)
        self._to_ask.pop(device, None)
        self._waiting.pop(device, None)
        if arrival is not None:
            self._reserved -= arrival.assembler.total
            self.buffered -= arrival.assembler.buffered
            self._owed -= arrival.owed

    def clear(self) -> None:
        """Drop all that has come."""
        for device in [*self._arrivals, *self._waiting]:
            self.forget(device)

    def ask(self, now: float, is_present: Callable[[str], bool]) -> list[tuple[str, list[int]]]:
        """(device, parts) of each that is to be asked now: its turn has come, or it was quiet for too long.

        Who is not present is not asked (requests would pile up in its session), and does not wait for a place.
        """
        self._quiet(now)
        while self._waiting:
            device, assembler = next(iter(self._waiting.items()))
            if is_present(device) and not self._has_room(assembler):
                break
            del self._waiting[device]
            if is_present(device):
                self._admit(device, assembler, 0)
                self._to_ask[device] = None
        asked, self._to_ask = [d for d in self._to_ask if is_present(d)], {}
        return [(device, self._request(device, now)) for device in asked]

    def _quiet(self, now: float) -> None:
        """Those whose parts have stopped coming: to be asked again, or to make way for those who wait."""
        quiet = []
        for device, at in self._quiet_at.items():
            if at > now:
                break
            quiet.append(device)
        if quiet:
            self._window = max(float(WINDOW), self._window / 2)
        for device in quiet:
            arrival = self._arrivals[device]
            arrival.in_vain += 1
            self._owe(arrival, 0)
            if self._waiting and arrival.in_vain > PATIENCE:
                self.forget(device)
                continue
            self._expect(device, now)
            self._to_ask[device] = None

    def _request(self, device: str, now: float) -> list[int]:
        arrival = self._arrivals[device]
        parts = arrival.assembler.missing()[:REQUEST]
        self._owe(arrival, len(parts))
        self._expect(device, now)
        return parts
