"""`[home_assistant]` of aggregator.toml: whether, and on which broker, Home Assistant is shown the fleet."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ..errors import UsageError
from ..transports.settings import MqttConfig


class HomeAssistantConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What Home Assistant is shown."""

    enabled: Annotated[bool, Meta(description="Publish the fleet for Home Assistant's MQTT discovery.")] = False
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{1,32}\Z",
            description="Home Assistant's discovery prefix, below which all of this lies.",
        ),
    ] = "homeassistant"
    devices: Annotated[
        int, Meta(ge=1, le=10_000, description="Most devices that are shown, the first ones by name.")
    ] = 200
    control: Annotated[
        bool,
        Meta(
            description="Whether its switches pause and resume devices; then every client that may write below the "
            "prefix can do that."
        ),
    ] = True
    url: Annotated[
        str | None,
        Meta(description="Home Assistant's broker, if it is not that of [mqtt].", examples=["mqtt://ha.local:1883"]),
    ] = None
    username: Annotated[str | None, Meta(description="Our user name there.", examples=["edgefl"])] = None
    password_file: Annotated[
        str | None, Meta(description="The file whose first line is our password there.", examples=["/etc/edgefl/ha"])
    ] = None
    ca: Annotated[
        str | None, Meta(description="TLS: the certificate of the authority of that broker.", examples=["/etc/ha.crt"])
    ] = None

    def broker(self, mqtt: MqttConfig) -> MqttConfig:
        """How that broker is reached; UsageError if it can't be that of `mqtt`."""
        if self.url is not None:
            return MqttConfig(
                url=self.url, username=self.username, password_file=self.password_file, ca=self.ca, session_expiry_s=0,
                reconnect_cap_s=60.0,
            )  # fmt: skip
        if mqtt.cert is not None:
            raise UsageError(
                "[home_assistant] needs the url of Home Assistant's broker: at that of [mqtt] clients are known by "
                "their certificate, and two connections with one certificate end each other"
            )
        login = (self.username or mqtt.username, self.password_file or mqtt.password_file)
        return MqttConfig(
            url=mqtt.url, username=login[0], password_file=login[1], ca=self.ca or mqtt.ca, session_expiry_s=0,
            reconnect_cap_s=60.0,
        )  # fmt: skip
