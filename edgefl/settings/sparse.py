"""Settings of a sparse update: a section of `Settings` like those in sections.py."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class SparseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Train only what fits into a device's memory (docs/sparse.md)."""

    arena_mb: Annotated[
        float,
        Meta(
            ge=0,
            le=65536,
            description="Megabytes that training a batch may take on a device, beside the params: what contributes "
            "most for its bytes is trained, the rest is frozen. Chosen at the first start, and kept. 0: no limit.",
            examples=[16.0],
        ),
    ] = 0.0
    public_data: Annotated[
        str | None,
        Meta(
            description="Public examples like those of the devices, as SPEC: their gradients say what contributes. "
            "Without them, later layers and larger weights count for more.",
            examples=["npz:/srv/edgefl/public.npz"],
        ),
    ] = None
