"""Settings of rounds: a section of `Settings` like those in sections.py."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..errors import UsageError
from .sections import AboveZero, Mode, OneOrMore, Share

MAX_LATE_ROUNDS = 100
INTERVAL_S = 60.0  # between two rounds of a deployment whose settings do not say


class RoundSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices a round asks, and when it opens and closes."""

    mode: Annotated[
        Literal["sync", "async"],
        Meta(
            description='"sync": a round combines updates of its own model. "async": the aggregator commits a model '
            "after updates of `goal` devices, whichever round they belong to, and devices keep training (FedBuff)."
        ),
    ] = "sync"
    interval_s: Annotated[
        Annotated[float, Meta(ge=0, le=1e9)] | None,
        Meta(
            description="Least seconds from the opening of one round to the opening of the next; without it, "
            f"{INTERVAL_S:g} in a deployment and 0 in a simulation.",
            examples=[INTERVAL_S],
        ),
    ] = None
    window: Annotated[
        str | None,
        Meta(
            description="Daily hours in which rounds open, from HH:MM to before HH:MM, also across midnight; without "
            "it, all day.",
            examples=["01:00-05:00"],
        ),
    ] = None
    timezone: Annotated[
        str | None,
        Meta(
            description="Time zone of `window`, such as Europe/Berlin; without it, the machine's own.",
            examples=["Europe/Berlin"],
        ),
    ] = None
    only_new_data: Annotated[
        bool,
        Meta(
            description="Ask only devices whose data have changed since they last counted, and open a round when "
            "min_reports of them are there."
        ),
    ] = False
    deadline_s: Annotated[
        float,
        Meta(
            gt=0,
            le=1e9,
            description="Seconds after which a round with `min_reports` reports closes. With fewer, while devices that "
            "it needs are at work, it goes on, for up to eight times as long.",
        ),
    ] = 300.0
    min_reports: Annotated[
        OneOrMore,
        Meta(
            description="A round that has fewer reports at its last deadline is abandoned, and the model stays as it "
            "is."
        ),
    ] = 2
    goal: Annotated[
        OneOrMore | None,
        Meta(
            description="Number of reports at which a round closes; without it, a round closes when all devices "
            "that it waits for have reported.",
            examples=[10],
        ),
    ] = None
    fraction: Annotated[
        float, Meta(gt=0, le=1, description="Share of the present devices that a round asks, drawn anew each time.")
    ] = 1.0
    over_select: Annotated[
        Annotated[float, Meta(ge=1, le=1000)] | None,
        Meta(
            description="Ask this many times the goal and close at the goal; without `goal`, the goal is the fraction "
            "of the present devices.",
            examples=[1.3],
        ),
    ] = None
    selection: Annotated[
        str,
        Meta(
            description='Which devices a round asks, where it does not ask all: "uniform", each alike; '
            '"power-of-choice:d=N", those of N candidates with the highest loss; or "oort", by loss, size and speed.',
            examples=["power-of-choice:d=20"],
        ),
    ] = "uniform"
    cohort: Annotated[
        Literal["list", "draw"],
        Meta(
            description='"list": a round names the devices that it asks, unless they are too many. "draw": each device '
            "draws for itself from the round's seed."
        ),
    ] = "list"
    late: Annotated[
        Literal["drop", "fold"],
        Meta(
            description='What happens to an update after its round: "drop" it, or "fold" it into the open round with '
            "less weight. Asynchronous rounds always fold."
        ),
    ] = "drop"
    late_rounds: Annotated[
        int,
        Meta(ge=1, le=MAX_LATE_ROUNDS, description="Number of rounds after its own in which an update is folded in."),
    ] = 3
    updates_per_s: Annotated[
        AboveZero | None,
        Meta(
            description="Devices spread their reports so that at most this many arrive in a second; without it, as "
            "many as the aggregator was measured to handle.",
            examples=[100.0],
        ),
    ] = None
    expect: Annotated[
        int,
        Meta(
            ge=0,
            description="Number of devices in the fleet. The first round waits for all of them, for one deadline at "
            'most, and "auto" derives from it how often a device takes part. 0: unknown.',
        ),
    ] = 0
    rounds: Annotated[
        OneOrMore | None, Meta(description="Number of rounds to run; without it, rounds go on.", examples=[100])
    ] = None
    target_accuracy: Annotated[
        Share | None, Meta(description="Stop when the test set's accuracy reaches this.", examples=[0.97])
    ] = None
    evaluate_every: Annotated[
        Annotated[int, Meta(ge=2)] | None,
        Meta(
            description="One round in this many trains nothing and only evaluates the model on what the devices hold "
            "out (`evaluate.holdout`).",
            examples=[10],
        ),
    ] = None

    def mode_of(self, round: int) -> Mode:
        """What the round of this number does: its number alone decides, so a restart changes nothing."""
        return "evaluate" if self.evaluate_every and round % self.evaluate_every == 0 else "train"

    def check_evaluation(self, holdout: float) -> None:
        """UsageError if rounds should only evaluate and can't; devices hold out the share `holdout`."""
        if self.evaluate_every and not holdout:
            raise UsageError("evaluate_every needs examples that devices hold out: set evaluate.holdout above 0")
        if self.evaluate_every and self.mode == "async":
            raise UsageError("asynchronous rounds evaluate with every update: leave evaluate_every out")

    @property
    def late_window(self) -> int:
        """How many rounds after its own an update still counts."""
        return self.late_rounds if self.late == "fold" or self.mode == "async" else 0
