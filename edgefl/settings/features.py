"""Settings of what devices tell of the columns of their data: a section of `Settings` like those in sections.py."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..errors import UsageError

LARGEST = 2.0**60  # of a range


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

    ranges: Annotated[
        str | None,
        Meta(
            description="Where rounds have noise: low and high of each column, separated by commas, or one pair for "
            "all. What lies beyond counts as the end.",
            examples=["900:1100, -20:50"],
        ),
    ] = None

    @property
    def column_ranges(self) -> tuple[tuple[float, float], ...]:
        """Low and high of each column, or one pair for all; none are set. UsageError."""
        return tuple(_range(part.strip()) for part in self.ranges.split(",")) if self.ranges else ()

    @property
    def is_federated(self) -> bool:
        """Whether the model gets a scaling, which devices' data set."""
        return self.standardize == "federated"


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = 0.0, 0.0
    if not -LARGEST <= found[0] < found[1] <= LARGEST:
        raise UsageError(f"features.ranges has {text!r}: give low:high, such as 900:1100")
    return found
