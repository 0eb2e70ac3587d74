"""PolicyConfig: `[policy]` of agent.toml. What it leaves out is as in policy.py: strict with keys, open without."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ...protocol.messages import Sha256
from ...settings.privacy import MOST_HELPERS
from ...trust.document import Name
from .policy import OPEN, STRICT, Policy

Bound = Annotated[float, Meta(gt=0, le=1e30)]
Many = Annotated[int, Meta(ge=1, le=2**32 - 1)]


class PolicyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What the owner lets a federation train here. The defaults named below hold where `[keys]` are on; without keys
    nothing is bounded unless it is set."""

    plans: Annotated[
        Literal["pinned", "ask", "first", "any"] | None,
        Meta(
            description='Which plans may train: "pinned": those in `approved` only; "ask": also those that '
            '`edgefl-agent approve` names, and any other waits; "first": the first one that comes, and any other '
            'waits; "any". With keys "ask", without "any".',
            examples=["pinned"],
        ),
    ] = None
    approved: Annotated[
        list[Sha256],
        Meta(description="Ids of approved plans: 64 hex digits each.", examples=[["0123456789abcdef" * 4]]),
    ] = []
    min_examples: Annotated[
        Many | None, Meta(description="Least examples behind an update; with keys 10.", examples=[10])
    ] = None
    min_steps: Annotated[
        Many | None, Meta(description="Least optimizer steps behind an update; with keys 2.", examples=[2])
    ] = None
    allow_gradient: Annotated[
        bool | None,
        Meta(
            description="Allow one gradient over all examples, as an update or behind each delta; with keys false.",
            examples=[False],
        ),
    ] = None
    allow_full_batch: Annotated[
        bool | None, Meta(description="Allow steps over all examples at once; with keys false.", examples=[False])
    ] = None
    max_lr: Annotated[Bound | None, Meta(description="Largest learning rate; with keys 10.", examples=[10.0])] = None
    max_epochs: Annotated[Many | None, Meta(description="Most epochs a round; with keys 50.", examples=[50])] = None
    max_flops: Annotated[
        Bound | None,
        Meta(
            description="Most floating-point operations of training a round: three times those of a forward pass, for "
            "each example of each epoch; with keys 1e13.",
            examples=[1e13],
        ),
    ] = None
    max_seconds: Annotated[
        Bound | None, Meta(description="Most seconds that a round may train here; with keys 600.", examples=[600.0])
    ] = None
    clip: Annotated[
        Bound | None,
        Meta(
            description="Largest L2 norm of what an update says has changed; more is scaled down before it is encoded.",
            examples=[10.0],
        ),
    ] = None

    statistics: Annotated[
        bool | None,
        Meta(
            description="Let counts, sums and histograms of the data's columns leave when the aggregator asks for a "
            "profile (docs/scaling.md); with keys false.",
            examples=[True],
        ),
    ] = None

    masked: Annotated[
        bool,
        Meta(
            description="Take part in masked rounds only, whose aggregator learns a sum and no update, and send "
            "neither scores nor verdicts (docs/masked.md)."
        ),
    ] = False
    helpers: Annotated[
        list[Name],
        Meta(
            description="Helpers that masks may be opened by; without any, those that the root has certified.",
            examples=[["north"]],
        ),
    ] = []
    least_helpers: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_HELPERS)] | None,
        Meta(
            description="Fewest helpers that must open a masked sum together, each of another operator.", examples=[2]
        ),
    ] = None
    operators: Annotated[
        dict[Name, Annotated[str, Meta(min_length=1, max_length=64)]],
        Meta(
            description="Who runs each helper, for `least_helpers`: helpers of one operator count once, and those that "
            "are not named here not at all. Without any, each helper counts.",
            examples=[{"north": "acme", "north-2": "acme"}],
        ),
    ] = {}
    least_devices: Annotated[
        Annotated[int, Meta(ge=2, le=2**20)] | None,
        Meta(description="Fewest devices in a masked sum.", examples=[10]),
    ] = None
    most_weight: Annotated[
        Annotated[int, Meta(ge=1, le=2**20)] | None,
        Meta(description="Largest weight that a masked round may give one device.", examples=[1]),
    ] = None
    most_clip: Annotated[
        Bound | None,
        Meta(description="Largest clip of a masked round: the L2 norm that one update may have.", examples=[2.0]),
    ] = None
    least_noise: Annotated[
        Bound | None,
        Meta(
            description="Least noise in a masked sum: its standard deviation, over the longest update.", examples=[0.5]
        ),
    ] = None
    least_separation: Annotated[
        Many | None,
        Meta(description="Fewest rounds from one participation of this device to its next.", examples=[10]),
    ] = None
    most_epsilon: Annotated[
        Bound | None,
        Meta(description="The epsilon above which this device takes part in no round.", examples=[8.0]),
    ] = None
    most_delta: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="Largest delta that `most_epsilon` may be told at; 1e-5 if this says nothing."),
    ] = None

    def policy(self, *, keys: bool) -> Policy:
        """With the defaults of a device that has `keys`, or has none."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        sets = {"approved": frozenset(self.approved), "helpers": frozenset(self.helpers)}
        return replace(STRICT if keys else OPEN, **{**given, **sets})
