"""Settings of what stays personal on each device: a section of `Settings` like those in sections.py."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class PersonalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the model each device keeps for itself (docs/personal.md)."""

    keep: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=256)]] | None,
        Meta(
            description="Params that never leave a device: names, which may have * and ?, or the kinds `head` (the "
            "last layer) and `bn` (batch normalization). Without it, those that the strategy keeps, mostly none.",
            examples=[["head"]],
        ),
    ] = None
