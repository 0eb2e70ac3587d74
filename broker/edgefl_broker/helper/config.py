"""What `helper.toml` may say; `edgefl keys add --helper` writes one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field, structs

from edgefl.helper.least import Least
from edgefl.protocol.topics import HELPER, check_federation, check_helper
from edgefl.transports.settings import MqttConfig
from edgefl.trust.settings import KeysConfig

HOLDER = "helper"  # how the files of its certificate are named


class HelperConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """helper.toml"""

    federation: Annotated[str, Meta(description="Name of the federation: a-z, 0-9 and '-'.", examples=["my-fleet"])]
    name: Annotated[
        str, Meta(description="Name of this helper, as `edgefl keys add NAME --helper` has it.", examples=["north"])
    ]
    state_dir: Annotated[
        str,
        Meta(
            description="Folder of what was opened; a relative path begins at the folder of helper.toml. Never restore "
            "it from a backup without a new epoch of keys."
        ),
    ] = "/var/lib/edgefl-helper"
    mqtt: Annotated[MqttConfig, Meta(description="Where the broker is.")]
    keys: Annotated[KeysConfig, Meta(description="Our keys, and whose asks are believed.")] = field(
        default_factory=KeysConfig
    )
    least: Annotated[Least, Meta(description="The weakest terms under which a sum is opened.")] = field(
        default_factory=Least
    )

    def __post_init__(self) -> None:
        check_federation(self.federation)
        check_helper(self.name)

    @property
    def user(self) -> str:
        """The helper's MQTT user name, and its client id."""
        return HELPER + self.name

    def located(self, folder: Path) -> HelperConfig:
        """The same, of a file in `folder`: there [keys] begins, and in [keys] are the TLS files that [mqtt] lacks."""
        keys = self.keys.located(folder)
        state_dir = str(folder / self.state_dir)
        return structs.replace(self, state_dir=state_dir, keys=keys, mqtt=self.mqtt.with_keys(keys, HOLDER))
