"""Settings of what devices tell of the columns of their data: a section of `Settings` like those in sections.py."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class FeatureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the columns of the devices' data are scaled, and what may be told of them."""

    standardize: Annotated[
        Literal["none", "federated"],
        Meta(
            description='"federated": before the first round that trains, devices tell sums of their columns, and each '
            "column is scaled to mean 0 and deviation 1 in front of the model, which takes raw units."
        ),
    ] = "none"
    min_devices: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="A profile shows no bin, label or column of fewer devices than these, and needs as many "
            "reports.",
        ),
    ] = 2

    @property
    def is_federated(self) -> bool:
        """Whether the model gets a scaling, which devices' data set."""
        return self.standardize == "federated"
