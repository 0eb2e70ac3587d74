"""The events of an MQTT link. They are plain values, which may be queued, compared and replayed.

Not here: the link itself (mqtt.py) and the decisions taken on these events (session, coordinator).
"""

from __future__ import annotations

from msgspec import Struct


class Up(Struct, frozen=True):
    """Connected. Subscribe at every `Up`, whatever `session_present` says.

    `max_packet_bytes` is the broker's MaximumPacketSize (None if it names none, as in MQTT 3.1.1);
    `receive_maximum` is how many QoS 1 messages the link keeps in flight; `protocol` is "5" or "3.1.1".
    """

    session_present: bool
    max_packet_bytes: int | None
    receive_maximum: int
    protocol: str


class Down(Struct, frozen=True):
    """Not connected: emitted when a connection ends, and after every attempt that fails."""

    reason: str
    retry_in_s: float


class Refused(Struct, frozen=True):
    """The broker refused a connection, and a `Down` follows; or it refused a subscription.

    `fatal`: no retry can help until the configuration changes. The link keeps trying nevertheless.
    """

    reason: str
    fatal: bool


class Message(Struct, frozen=True, gc=False):
    """One message. `handle` is (connection number, packet id), which `MqttLink.ack` needs."""

    topic: str
    payload: bytes
    retain: bool
    handle: tuple[int, int]


class Published(Struct, frozen=True):
    """The broker has acknowledged (`ok`) or refused the message of this token, or has never answered.

    `ok` does not mean that a reader has the message: brokers drop acknowledged messages. With "connection lost" the
    message may or may not have arrived, and the link does not send it again. `refused`: the broker has refused it.
    """

    token: int
    ok: bool
    reason: str
    refused: bool = False


LinkEvent = Up | Down | Refused | Message | Published
