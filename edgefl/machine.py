"""Events and actions of the two state machines, DeviceSession and RoundCoordinator.

A machine is `step(event, now) -> actions` and never touches a socket, a clock, a disk or a thread: its host
(agent, aggregator, simulator) feeds it events and carries out its actions in their order. `now` is monotonic
seconds. `wake_at` is the time at which the machine wants a Tick, or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec


@dataclass(frozen=True)
class Connected:
    """The MQTT session is up. `max_packet_bytes` is what the broker said it takes, if it did."""

    boot: int = 0
    max_packet_bytes: int | None = None


@dataclass(frozen=True)
class Disconnected:
    """The MQTT session is down; what had not been acknowledged is unknown."""


class Received(msgspec.Struct, frozen=True, gc=False):  # a dataclass takes five times as long to make
    """A message came."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class Sent:
    """The broker acknowledged (or refused) the Publish that carried `token`. No proof of delivery."""

    token: int
    ok: bool


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Stop:
    """The host is about to end."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Send at QoS 1; report back with Sent if there is a token."""

    topic: str
    payload: bytes
    retain: bool = False
    token: int | None = None


@dataclass(frozen=True)
class Subscribe:
    """Subscribe to exact topics or filters; subscribing again asks for the retained message again.

    QoS 0 is for what is retained and short: brokers queue no more than they can send, and drop the rest of QoS 1.
    """

    topics: tuple[str, ...]
    qos: Literal[0, 1] = 1


@dataclass(frozen=True)
class Unsubscribe:
    """Stop receiving these."""

    topics: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """A line for the log."""

    level: Literal["debug", "info", "warning", "error"]
    text: str
