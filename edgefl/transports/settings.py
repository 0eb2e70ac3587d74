"""The [mqtt] table of both daemons' configuration files."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..protocol.topics import ROOT
from .mqtt import LinkEvent, MqttLink, TlsConfig

PEM = Meta(examples=["/etc/edgefl/own.pem"])


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the MQTT broker."""

    url: Annotated[
        str,
        Meta(
            description="The broker: mqtt://host:1883, or mqtts://host:8883 for TLS.", examples=["mqtt://192.168.1.10"]
        ),
    ]
    protocol: Annotated[Literal["auto", "5", "3.1.1"], Meta(description="MQTT version: auto, 5 or 3.1.1.")] = "auto"
    root: Annotated[
        str, Meta(description="Where the topics of all federations begin: one or two levels, the same on all sides.")
    ] = ROOT
    client_id: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9-]{1,23}\Z",
                description="Our name at the broker, where one is needed beside the device's or the federation's.",
                examples=["pi-kitchen-2"],
            ),
        ]
        | None
    ) = None
    keepalive_s: Annotated[int, Meta(ge=5, le=3600, description="Seconds between signs of life.")] = 60
    reconnect_cap_s: Annotated[
        float, Meta(gt=0, le=86400, description="Longest wait between two attempts to connect, in seconds.")
    ] = 600.0
    session_expiry_s: Annotated[
        int,
        Meta(ge=0, le=2**32 - 2, description="How long the broker keeps our session while we are away; 0: not at all."),
    ] = 86400
    ca: Annotated[str | None, PEM, Meta(description="TLS: the certificate authority's certificate.")] = None
    cert: Annotated[str | None, PEM, Meta(description="TLS: our own certificate.")] = None
    key: Annotated[str | None, PEM, Meta(description="TLS: our own key.")] = None

    def make_link(
        self,
        client_id: str,
        on_event: Callable[[LinkEvent], None],
        rng: random.Random,
        *,
        will: tuple[str, bytes] | None = None,
        receive_maximum: int = 10,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> MqttLink:
        """A link that acknowledges a message only when told to; `client_id` if none is set. TransportError."""
        tls = TlsConfig(self.ca, self.cert, self.key) if self.ca or self.cert or self.key else None
        return MqttLink(
            self.url, self.client_id or client_id, on_event=on_event, rng=rng, will=will, keepalive=self.keepalive_s,
            protocol=self.protocol, tls=tls, receive_maximum=receive_maximum, manual_ack=True,
            session_expiry_s=self.session_expiry_s, backoff_cap_s=self.reconnect_cap_s, is_behind=is_behind,
        )  # fmt: skip
