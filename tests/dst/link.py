"""Link: one TCP connection between a client and the broker, over lines that may be slow.

What is sent under one key arrives in order. On a slow line all is in order, so acknowledgements and control messages
queue behind data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgefl.machine import Flow
from edgefl.simulation.clock import VirtualClock
from edgefl.simulation.devices.line import Line, flow

from .schedule import Weather

KEEPALIVE_S = 60.0
PACKET_BYTES = 8  # of a packet, beside its topics and its payload


class Client(Protocol):
    """What a connection calls at the client's end."""

    name: str

    def on_connected(self, connection: Connection) -> None: ...
    def on_message(self, connection: Connection, delivery: Delivery) -> None: ...
    def on_acknowledged(self, connection: Connection, token: int) -> None: ...
    def on_closed(self, connection: Connection) -> None: ...


@dataclass
class Delivery:
    """One message in a client's session. From `acknowledged_at` on the broker forgets it."""

    topic: str
    payload: bytes
    acknowledged_at: float | None = None


class Connection:
    """One TCP connection. Once it is severed nothing arrives, though either end may notice only later."""

    def __init__(
        self, clock: VirtualClock, weather: Weather, client: Client, will: tuple[str, bytes] | None,
        rate: float | None, before: Connection | None,
    ) -> None:  # fmt: skip
        self.client, self.will = client, will
        self.severed = False
        self.severed_at = 0.0
        self.stalled_until = 0.0
        self._clock, self._weather = clock, weather
        self.uplink, self.downlink = Line(rate), Line(rate)
        self._newest: dict[str, float] = {}
        self._before = (0, 0) if before is None else before.passed()  # bytes that passed over the client's last ones
        self._measured_at = 0.0
        self._wanted: set[str] = set()
        self._passing: dict[str, float] = {}  # until when, by direction and topic

    def up(self, key: str, arrive: Callable[[], None], size: int = 0) -> None:
        """From the client to the broker: `size` bytes of topics and payload."""
        self._passing[key] = self.uplink.send(PACKET_BYTES + size, self._clock.now)
        self._send(key, arrive, self._passing[key])

    def down(self, key: str, arrive: Callable[[], None], size: int = 0) -> None:
        """From the broker to the client."""
        self._send(key, arrive, self.downlink.send(PACKET_BYTES + size, self._clock.now))

    def passed(self) -> tuple[int, int]:
        """Bytes that have passed up and down, over the client's earlier connections too."""
        told = self._flow()
        return told.acknowledged, told.received

    def backlog_s(self) -> float:
        """How long what is queued on its lines still takes."""
        return max(0.0, self.uplink.free_at - self._clock.now, self.downlink.free_at - self._clock.now)

    def measure(self) -> Flow | None:
        """What the client's host measures of a slow link, once a second."""
        if (self.uplink.rate is None and not self.backlog_s()) or self._clock.now < self._measured_at + 1.0:
            return None
        self._measured_at = self._clock.now
        return self._flow()

    def _flow(self) -> Flow:
        return flow(self.uplink, self.downlink, self._clock.now, keepalive_s=KEEPALIVE_S, before=self._before)

    def expect(self, key: str) -> None:
        """What was sent last under this key is what its receiver has asked for."""
        self._passing[key] = self.downlink.free_at

    def want(self, key: str) -> None:
        """The client asks for what comes under this key."""
        self._wanted.add(key)

    def forget(self, key: str) -> None:
        """What is sent under this key is not wanted any more."""
        self._wanted.discard(key)
        self._passing.pop(key, None)

    def is_awaited(self, key: str) -> bool:
        """Whether what the client has asked for, and still wants, is passing."""
        return key in self._wanted and self.is_passing(key)

    def is_passing(self, key: str) -> bool:
        """Whether what was sent last under this key is still queued, or flowing, on a line that is not cut."""
        return not self.severed and self._clock.now < self._passing.get(key, 0.0)

    def puback(self) -> float:
        """The client acknowledges a message; returns when the broker will know."""
        return self.uplink.send(PACKET_BYTES, self._clock.now) + self._weather.latency()

    def heal(self) -> None:
        """Both lines lose their rate."""
        self.uplink.heal()
        self.downlink.heal()

    def _send(self, key: str, arrive: Callable[[], None], passed_at: float) -> None:
        at = max(passed_at + self._weather.latency(), self._newest.get(key, 0.0) + 1e-4)
        self._newest[key] = at
        self._clock.at(at, lambda: self._arrive(arrive))

    def _arrive(self, arrive: Callable[[], None]) -> None:
        if self.severed:
            return
        until = max(self.stalled_until, self._weather.frozen_until)
        if self._clock.now < until:
            self._clock.at(until, lambda: self._arrive(arrive))
            return
        arrive()

    def sever(self) -> None:
        if not self.severed:
            self.severed, self.severed_at = True, self._clock.now
