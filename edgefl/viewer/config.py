"""What `viewer.toml` may say; `edgefl keys add --viewer` writes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field, structs

from ..errors import UsageError
from ..settings import files
from ..transports.settings import MqttConfig
from ..trust.settings import KeysConfig

OTHERS = ("model", "device_id")  # keys that only the files of daemons have
HOLDER = "viewer"  # how the files of its certificate are named


class ViewerConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """viewer.toml"""

    federation: Annotated[str, Meta(description="Name of the federation: a-z, 0-9 and '-'.", examples=["my-fleet"])]
    mqtt: Annotated[MqttConfig, Meta(description="Where the broker is.")]
    keys: Annotated[KeysConfig, Meta(description="Whose messages are believed.")] = field(default_factory=KeysConfig)

    def located(self, folder: Path) -> ViewerConfig:
        """The same, of a file in `folder`: there [keys] begins, and in [keys] are the TLS files that [mqtt] lacks."""
        keys = self.keys.located(folder)
        return structs.replace(self, keys=keys, mqtt=self.mqtt.with_keys(keys, HOLDER))


def load(path: Path, sets: Sequence[str] = ()) -> ViewerConfig:
    """The configuration in a viewer.toml, or in that of a daemon which has no certificate: two clients with one
    certificate disconnect each other. UsageError."""
    daemons: list[str] = []

    def is_a_daemons(table: Mapping[str, Any]) -> bool:
        daemons.extend(key for key in OTHERS if key in table)
        return bool(daemons)

    config = files.load(path, ViewerConfig, sets, only=is_a_daemons)
    if not daemons:
        return config
    if config.keys.dir or config.mqtt.cert:
        raise UsageError(
            f"{path} has the certificate of a daemon, which a second client with it would disconnect: `edgefl keys add "
            "DIR NAME --viewer` makes a viewer.toml"
        )
    return structs.replace(config, mqtt=structs.replace(config.mqtt, client_id=None))
