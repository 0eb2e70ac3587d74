"""Least: what a helper opens at the least, as its owner has pinned it. What the aggregator asks may be stricter.

The helper is the party that an aggregator can't talk into less: a sum of two devices, or one without noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from ..protocol.terms import Terms
from ..settings.sections import AboveZero

MEGABYTE = 1e6


class Least(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weakest terms under which this helper opens a sum."""

    devices: Annotated[int, Meta(ge=2, le=2**20, description="Fewest devices whose sum is opened.")] = 5
    weight: Annotated[int, Meta(ge=1, le=2**20, description="Largest weight that terms may give one device.")] = 1
    clip: Annotated[
        AboveZero | None,
        Meta(description="Largest L2 norm that terms may let a device's update have.", examples=[2.0]),
    ] = None
    noise: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="Least noise: its standard deviation, over the norm that a device's integers may have.",
        ),
    ] = 0.0
    separation: Annotated[
        int, Meta(ge=0, le=2**20, description="Fewest rounds from one participation of a device to its next.")
    ] = 0
    epsilon: Annotated[
        AboveZero | None, Meta(description="The epsilon at which this helper opens nothing more.", examples=[8.0])
    ] = None
    delta: Annotated[
        float, Meta(gt=0, lt=1, description="Largest delta that terms may count epsilon at, with noise.")
    ] = 1e-5
    answer_mb: Annotated[float, Meta(gt=0, le=4000, description="Longest answer, in megabytes.")] = 64.0
    memory_mb: Annotated[
        float, Meta(gt=0, le=1e6, description="Most memory for the vectors of a round and of correlated noise, in MB.")
    ] = 1000.0

    def faults(self, terms: Terms) -> Iterator[str]:
        """What in these terms is weaker than the owner has pinned."""
        noise = terms.noise.sigma / math.sqrt(terms.norm2)
        size = terms.groups * terms.packed_bytes / MEGABYTE
        memory = terms.length * (4 + 8 * vectors_of(terms)) / MEGABYTE
        if terms.weights > self.weight:
            yield f"a device may weigh {terms.weights}, and [least] weight is {self.weight}"
        if self.clip is not None and terms.profile is None and terms.clip > self.clip:
            yield f"updates are clipped at {terms.clip:g}, and [least] clip is {self.clip:g}"
        if noise < self.noise:
            yield f"noise is {noise:.4g} of a device's norm, and [least] noise is {self.noise:g}"
        if terms.noise.separation < self.separation:
            yield f"a device may be back after {terms.noise.separation} rounds; [least] separation is {self.separation}"
        if self.epsilon is not None and terms.noise.kind == "none":
            yield f"a sum without noise has no epsilon, and [least] epsilon is {self.epsilon:g}"
        if self.epsilon is not None and terms.epsilon > self.epsilon:
            yield f"epsilon would be {terms.epsilon:g}, and [least] epsilon is {self.epsilon:g}"
        if terms.delta > self.delta:
            yield f"epsilon is told at a delta of {terms.delta:g}, and [least] delta is {self.delta:g}"
        if size > self.answer_mb:
            yield f"its answer would have {size:.1f} MB, and [least] answer_mb is {self.answer_mb:g}"
        if memory > self.memory_mb:
            yield f"its vectors would take {memory:.1f} MB, and [least] memory_mb is {self.memory_mb:g}"

    def fewest(self, terms: Terms) -> int:
        """The fewest devices of a group that is opened."""
        return max(self.devices, terms.least)


def vectors_of(terms: Terms) -> int:
    """How many vectors of 8 bytes a number the noise of a round takes: with a band, those of the rounds before too."""
    return 0 if terms.noise.kind == "none" else max(1, terms.noise.band)
