"""The [mqtt] table of both daemons' configuration files."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from ..private_files import find, read_secret
from ..protocol.topics import ROOT
from ..trust.settings import KeysConfig
from .mqtt import LinkEvent, Login, MqttLink, TlsConfig
from .profiles import PROFILES, Name, Profile

PASSWORD = "EDGEFL_MQTT_PASSWORD"  # in the environment
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
    profile: Annotated[
        Name,
        Meta(description="The broker whose limits hold: mosquitto, aws, azure, emqx or hivemq."),
    ] = "mosquitto"
    receive_maximum: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=65535,
                description="Messages that the broker may send ahead of our acknowledgements; else the profile's.",
                examples=[100],
            ),
        ]
        | None
    ) = None
    publishes_per_s: (
        Annotated[
            float,
            Meta(
                gt=0, le=1e6, description="Most messages that we send in a second; else the profile's.", examples=[10.0]
            ),
        ]
        | None
    ) = None
    session_expiry_s: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=2**32 - 2,
                description="Seconds that the broker keeps our session while we are away, 0: none; else the profile's.",
                examples=[86400],
            ),
        ]
        | None
    ) = None
    ca: Annotated[
        str | None, PEM, Meta(description="TLS: the certificate authority's certificate; else that in [keys] dir.")
    ] = None
    cert: Annotated[str | None, PEM, Meta(description="TLS: our own certificate; else that in [keys] dir.")] = None
    key: Annotated[
        str | None, PEM, Meta(description="TLS: our own key, which nobody else may read; else that in [keys] dir.")
    ] = None
    username: Annotated[
        str | None, Meta(description="Our user name at the broker, where passwords are used.", examples=["pi-kitchen"])
    ] = None
    password_file: Annotated[
        str | None,
        Meta(
            description="The file whose first line is our password, which nobody else may read, or the name of one of "
            "systemd's credentials; without it, the environment's EDGEFL_MQTT_PASSWORD.",
            examples=["/etc/edgefl/password"],
        ),
    ] = None

    @property
    def login(self) -> Login:
        """User and password, unless they are in the URL; UsageError."""
        if self.password_file is not None:
            return Login(self.username, read_secret(find(self.password_file), "[mqtt] password_file"))
        return Login(self.username, os.environ.get(PASSWORD) or None)

    @property
    def tls(self) -> TlsConfig | None:
        """The TLS files; None if none is set. Each may be the name of one of systemd's credentials."""
        ca, cert, key = (name and str(find(name)) for name in (self.ca, self.cert, self.key))
        return TlsConfig(ca, cert, key) if ca or cert or key else None

    def with_keys(self, keys: KeysConfig, holder: str) -> MqttConfig:
        """With the TLS files that `edgefl keys` has made for this `holder`, where TLS is on and no others are set. A
        client with a user name has a password instead."""
        has_user = self.username is not None or "@" in self.url
        if keys.dir is None or has_user or self.ca or self.cert or self.key or not self.url.startswith("mqtts://"):
            return self
        ca, cert, key = (os.path.join(keys.dir, name) for name in ("ca.crt", f"{holder}.crt", f"{holder}.key"))
        return structs.replace(self, ca=ca, cert=cert, key=key)

    @property
    def limits(self) -> Profile:
        """The profile, with what is set explicitly in place of its own."""
        names = ("receive_maximum", "publishes_per_s", "session_expiry_s")
        explicit = {name: value for name in names if (value := getattr(self, name)) is not None}
        return structs.replace(PROFILES[self.profile], **explicit)

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
        """A link that acknowledges a message only when told to; `client_id` if none is set. UsageError."""
        limits = self.limits
        return MqttLink(
            self.url, self.client_id or client_id, on_event=on_event, rng=rng, will=will, keepalive=self.keepalive_s,
            protocol=self.protocol, tls=self.tls, login=self.login,
            receive_maximum=limits.receive_maximum or receive_maximum, manual_ack=True,
            session_expiry_s=limits.session_expiry_s, backoff_cap_s=self.reconnect_cap_s, is_behind=is_behind,
            in_flight=limits.in_flight, publishes_per_s=limits.publishes_per_s,
        )  # fmt: skip
