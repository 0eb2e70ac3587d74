"""KeysConfig: `[keys]` of agent.toml and aggregator.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct


class KeysConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may sign."""

    dir: Annotated[
        str | None,
        Meta(
            description="Folder with the keys that `edgefl keys` has made for this machine; a relative path begins "
            "at the folder of this file. Without it, nothing is signed and nothing verified: the federation is open.",
            examples=["/etc/edgefl/keys"],
        ),
    ] = None

    def located(self, folder: Path) -> KeysConfig:
        """The same, of a configuration file in `folder`."""
        return self if self.dir is None else KeysConfig(str(folder / self.dir))
