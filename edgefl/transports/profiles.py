"""Profiles: what common MQTT brokers allow a client. `[mqtt] profile` chooses one; explicit settings override it.

    profile     what the broker's own documents say
    mosquitto   as broker/mosquitto.conf configures it: packets of 66 KiB, no limit of the rate
    aws         IoT Core: payloads of 128 KB, 100 publishes a second on a connection, 100 unacknowledged messages
    azure       Event Grid: 64 KB in flight and in a retained message, 1,000 publishes a second, 8 h sessions
    emqx        Serverless: packets of 1 MB, 10 publishes a second from a client, sessions of 2 h
    hivemq      Cloud: a Receive Maximum of 10

All allow topics with seven slashes, eight filters in a SUBSCRIBE, and the at most ten subscriptions of a device.
A part of 64 KB crosses a slow link within the keep-alive, so profiles of brokers that allow more do not use it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ..protocol.parts import DEFAULT_PART_BYTES

Name = Literal["mosquitto", "aws", "azure", "emqx", "hivemq"]


class Profile(Struct, frozen=True):
    """`in_flight` counts our unacknowledged messages, `receive_maximum` the broker's; None: as the daemon prefers."""

    part_bytes: int = DEFAULT_PART_BYTES
    in_flight: int = 10
    receive_maximum: int | None = None
    publishes_per_s: float | None = None
    session_expiry_s: int = 86400


PROFILES: dict[Name, Profile] = {
    "mosquitto": Profile(),
    "aws": Profile(receive_maximum=100, publishes_per_s=100.0),
    "azure": Profile(
        part_bytes=30 * 1024, in_flight=2, receive_maximum=2, publishes_per_s=1000.0, session_expiry_s=8 * 3600
    ),
    "emqx": Profile(receive_maximum=32, publishes_per_s=10.0, session_expiry_s=2 * 3600),
    "hivemq": Profile(receive_maximum=10),
}
