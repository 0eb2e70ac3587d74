"""Link: one TCP connection between a client and the broker, over lines that may be slow.

What is sent under one key arrives in order. On a slow line all is in order, so acknowledgements and control messages
queue behind data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgefl.simulation.clock import VirtualClock
from edgefl.simulation.line import Line

from .schedule import Weather

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
        self, clock: VirtualClock, weather: Weather, client: Client, will: tuple[str, bytes] | None, rate: float | None
    ) -> None:
        self.client, self.will = client, will
        self.severed = False
        self.severed_at = 0.0
        self.stalled_until = 0.0
        self._clock, self._weather = clock, weather
        self.uplink, self.downlink = Line(rate), Line(rate)
        self._newest: dict[str, float] = {}

    def up(self, key: str, arrive: Callable[[], None], size: int = 0) -> None:
        """From the client to the broker: `size` bytes of topics and payload."""
        self._send(key, arrive, self.uplink.send(PACKET_BYTES + size, self._clock.now))

    def down(self, key: str, arrive: Callable[[], None], size: int = 0) -> None:
        """From the broker to the client."""
        self._send(key, arrive, self.downlink.send(PACKET_BYTES + size, self._clock.now))

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
