"""Settings of masked rounds and of noise: a section of `Settings` like those in sections.py.

docs/masked.md says what a masked round is, and how to choose these. What goes together with it is in
edgefl/masked_fit.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..privacy import Epsilon
from ..privacy.clipping import RATE, Clipping
from .sections import AboveZero, Auto

HELPER = "helper"  # of a simulation whose settings name none
MOST_HELPERS = 4


class PrivacySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rounds whose updates only come out as a sum, and the noise in it (docs/masked.md)."""

    masked: Annotated[
        bool,
        Meta(
            description="Devices add a mask to each update that a second party, the helper, knows: the aggregator "
            "learns the sum of at least `least` updates, and no update. Needs keys."
        ),
    ] = False
    helpers: Annotated[
        str | None,
        Meta(
            description="Names of the helpers, one to four, separated by commas. An update stays private as long as "
            "one of them keeps its keys from the aggregator.",
            examples=["north"],
        ),
    ] = None
    helper_s: Annotated[
        float,
        Meta(gt=0, le=1e6, description="Seconds that the helpers have for their answer, before a round is abandoned."),
    ] = 120.0
    least: Annotated[
        int, Meta(ge=2, le=100_000, description="Least number of updates in a sum; a round with fewer is abandoned.")
    ] = 5
    most: Annotated[
        Annotated[int, Meta(ge=2, le=1_000_000)] | Auto,
        Meta(
            description='Most updates in a sum: a round closes when it has so many. "auto": the goal, or else as many '
            "as `rounds.fraction` of `rounds.expect`."
        ),
    ] = "auto"
    share: Annotated[
        float,
        Meta(gt=0, le=1, description="Share of an update's coordinates that each round sends, the same for all."),
    ] = 0.125
    transform: Annotated[
        Literal["subset", "hadamard"],
        Meta(
            description='How a round chooses them: "subset", some of the params; or "hadamard", some coordinates of a '
            "rotation of all params, which are of much the same size."
        ),
    ] = "subset"
    bits: Annotated[
        int,
        Meta(
            ge=4,
            le=32,
            description="Bits of each masked number. The sum of all devices has to fit into them, so with more devices "
            "each one's numbers are coarser.",
        ),
    ] = 16
    clip: Annotated[
        AboveZero,
        Meta(
            description="Largest L2 norm of one device's update; a longer one is scaled down. With `clip_quantile` it "
            "is that of the first round."
        ),
    ] = 2.0
    clip_quantile: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(
            description="Adaptive clipping: each round moves the clip toward the one that this share of the updates is "
            "no longer than, by what devices vote under their masks; 0.5 is the median. Without it the clip is fixed.",
            examples=[0.5],
        ),
    ] = None
    clip_rate: Annotated[
        float,
        Meta(gt=0, le=1, description="How fast it moves: a round changes it by a factor of e^`clip_rate` at most."),
    ] = RATE
    clip_most: Annotated[
        AboveZero | None,
        Meta(
            description="Largest clip that it may reach, no larger than what owners of devices and helpers allow. In "
            "any case it stays within a factor of 100 of `clip`.",
            examples=[10.0],
        ),
    ] = None
    weight: Annotated[
        int, Meta(ge=1, le=1000, description="Largest weight of a device: 1 counts all devices alike.")
    ] = 1
    unit: Annotated[
        int,
        Meta(
            ge=1,
            le=2**24,
            description="Examples for each unit of weight: a device with n counts n / `unit`, rounded up, and at most "
            "`weight`.",
        ),
    ] = 100
    scores: Annotated[
        bool,
        Meta(
            description="Sum what devices measure on the examples that they hold out (`evaluate.holdout`) under the "
            "same masks."
        ),
    ] = False
    groups: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Number of groups that a round's devices fall into by a hash; each is summed on its own, and "
            "the groups' means are combined by their median, so that few hostile devices spoil no round.",
        ),
    ] = 1

    noise: Annotated[
        Literal["none", "independent", "banded"],
        Meta(
            description='Noise that the helper adds to each sum: "none"; "independent" of earlier rounds; or "banded", '
            "correlated over rounds, which needs a `separation` and a fixed number of rounds."
        ),
    ] = "none"
    sigma: Annotated[
        float, Meta(ge=0, le=1e6, description="Standard deviation of the noise, over the longest update.")
    ] = 0.0
    band: Annotated[
        int, Meta(ge=1, le=1000, description='Rounds over which "banded" noise is correlated, at most `separation`.')
    ] = 1
    separation: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Least number of rounds from one participation of a device to its next; 0: any.",
        ),
    ] = 0
    budget: Annotated[
        AboveZero | None,
        Meta(
            description="The epsilon at which the federation stops, for good; without it, no end is set.",
            examples=[8.0],
        ),
    ] = None
    told: Annotated[
        Epsilon,
        Meta(
            description="Tell devices no less epsilon than this. It is for a restored aggregator whose devices refuse "
            "its rounds, since they were told of more than any helper knows (`epsilon falls from ...`), and for one "
            "that waits until its operator says that so much is spent.",
            examples=[2.1],
        ),
    ] = 0.0
    opened: Annotated[
        int,
        Meta(
            ge=0,
            le=2**31,
            description="The newest round of this run that helpers have opened: rounds up to it are left out. For "
            "a restored aggregator that waits until its operator says that so many rounds were run.",
            examples=[15],
        ),
    ] = 0
    delta: Annotated[float, Meta(gt=0, lt=1, description="The delta of the epsilon that is told.")] = 1e-5

    @property
    def clipping(self) -> Clipping:
        """How the clip moves from round to round, if it does."""
        return Clipping(self.clip, self.clip_quantile, self.clip_rate, self.clip_most)

    @property
    def helper_names(self) -> list[str]:
        """The helpers that `helpers` names."""
        return [name for name in (part.strip() for part in (self.helpers or "").split(",")) if name]
