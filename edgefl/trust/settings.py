"""KeysConfig: `[keys]` of agent.toml and aggregator.toml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class KeysConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may sign."""

    dir: Annotated[
        str | None,
        Meta(
            description="Folder with the keys that `edgefl keys` has made for this machine. Without it, nothing is "
            "signed and nothing verified: the federation is open.",
            examples=["/etc/edgefl/keys"],
        ),
    ] = None
