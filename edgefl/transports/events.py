"""What an MQTT link tells its user. Plain values: they may be queued, compared and replayed.

Not here: the link itself (mqtt.py) and the decisions taken on these events (session, coordinator).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Up:
    """Connected. Subscribe now: at every `Up`, whatever `session_present` says.

    `max_packet_bytes` is the broker's MaximumPacketSize (None: it names none, as in MQTT 3.1.1);
    `receive_maximum` is how many QoS 1 messages the link keeps in flight; `protocol` is "5" or "3.1.1".
    """

    session_present: bool
    max_packet_bytes: int | None
    receive_maximum: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Down:
    """Not connected: sent when a connection ends, and after every attempt that fails."""

    reason: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker answered no: to a connection (a `Down` follows) or to a subscription (none follows).

    `fatal`: no retry can help until the configuration changes. The link goes on trying all the same.
    """

    reason: str
    fatal: bool


class Message(msgspec.Struct, frozen=True, gc=False):  # a dataclass takes five times as long to make
    """One message. `handle` is (connection number, packet id), what `MqttLink.ack` needs."""

    topic: str
    payload: bytes
    retain: bool
    handle: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has acknowledged (`ok`) or refused the message of this token, or it was never answered.

    `ok` means the broker's word, not the reader's: brokers drop acknowledged messages. With "connection
    lost" the message may or may not have arrived, and the link will not send it again.
    """

    token: int
    ok: bool
    reason: str


LinkEvent = Up | Down | Refused | Message | Published
