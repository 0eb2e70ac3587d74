"""Settings of what keeps bad updates and bad models out: sections of `Settings` like those in sections.py."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..errors import UsageError
from .sections import AboveZero, Auto, Real, Share

INFLUENCE = 1.5  # the default factor where keys are on


class AdmissionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an update may be before it counts, and when a device is put into quarantine."""

    max_examples: Annotated[
        int,
        Meta(
            ge=1,
            le=2**24,
            description="The largest number of examples that a device may claim; an enrolled device may have a limit "
            "of its own.",
        ),
    ] = 2**24
    influence: Annotated[
        Annotated[float, Meta(ge=1, le=1e6)] | Auto | Literal["off"],
        Meta(
            description="An update whose influence, its examples times the norm of its delta, is more than this many "
            "times the devices' median counts with a lower weight; one whose delta alone is ten times too long is "
            f'refused. "auto": {INFLUENCE:g} where keys are on, else "off".'
        ),
    ] = "auto"
    first_influence: Annotated[
        AboveZero | None,
        Meta(
            description="The influence that an update may have before any has been counted; without it, updates of "
            "the first round wait on disk until it closes, and its own median decides.",
            examples=[1000.0],
        ),
    ] = None
    refusals: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="A device is put into quarantine once signed updates of it were refused in this many of the "
            "last 100 rounds.",
        ),
    ] = 5
    quarantine_h: Annotated[
        float,
        Meta(gt=0, le=87_600, description="Hours until a quarantine ends; `edgefl release NAME` ends it at once."),
    ] = 24.0

    def factor(self, keys: bool) -> float | None:
        """How many times the median an influence may be; None: any. `keys`: updates are signed."""
        if isinstance(self.influence, str):
            return INFLUENCE if self.influence == "auto" and keys else None
        return self.influence


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new model has to show before it is committed."""

    judge: Annotated[
        Literal["none", "test", "canaries"],
        Meta(
            description='What judges a new model before it is committed: "none"; "test", the test set of '
            '`evaluate.test_data`; or "canaries", devices that evaluate it on what they hold out. A round whose model '
            "is refused is recorded as refused, and the model stays as it is."
        ),
    ] = "none"
    max_accuracy_drop: Annotated[
        Share,
        Meta(
            description="The accuracy that a new model may lose against the model before it, as a share: 0.02 is two "
            "points."
        ),
    ] = 0.02
    max_loss_rise: Annotated[
        Real,
        Meta(
            description="Where the model's loss has no accuracy: the share by which a new model's loss may exceed that "
            "of the model before it."
        ),
    ] = 0.1

    canaries: Annotated[
        str | None,
        Meta(
            description="Devices that judge, separated by commas, beside those enrolled as canaries.",
            examples=["pi-01, pi-02, pi-03"],
        ),
    ] = None
    quorum: Annotated[
        int, Meta(ge=1, le=10_000, description="Least number of canaries whose verdicts decide; with fewer, no.")
    ] = 3
    canary_deadline_s: Annotated[
        float, Meta(gt=0, le=1e6, description="Seconds that canaries have for their verdicts.")
    ] = 120.0

    @property
    def canary_names(self) -> frozenset[str]:
        """The devices that `canaries` names."""
        return frozenset(name.strip() for name in (self.canaries or "").split(",")) - {""}

    def check(self, has_test: bool, holdout: float) -> None:
        """UsageError if nothing is there that could judge a model."""
        if self.judge == "canaries" and not holdout:
            raise UsageError('gate.judge = "canaries" needs examples that devices hold out: set evaluate.holdout')
        if self.judge == "test" and not has_test:
            raise UsageError('gate.judge = "test" needs a test set: set evaluate.test_data')
