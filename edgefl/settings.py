"""Settings: what can be chosen about local training and about rounds, with bounds and defaults."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .errors import UsageError

MAX_LATE_ROUNDS = 100

Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Real = Annotated[float, Meta(ge=0, le=1e6)]
Mode = Literal["train", "evaluate"]


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device does with the params of a round: local SGD, or one gradient over all its data."""

    mode: Literal["sgd", "gradient"] = "sgd"
    optimizer: Literal["sgd", "nesterov", "adam"] = "sgd"
    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 1
    batch_size: Annotated[int, Meta(ge=1, le=2**24)] | None = 10  # None: all examples in one batch
    lr: Annotated[float, Meta(gt=0, le=1e6)] = 0.1
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    weight_decay: Real = 0.0
    prox_mu: Real = 0.0
    clip_norm: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    max_steps: Positive | None = None
    seed: Count = 0


class RoundConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a round opens and closes.

    goal: close at so many reports (None: when all who are asked and there have reported).
    min_reports: fewer at the deadline abandon it.
    fraction: share of the present devices that is asked, C in McMahan et al. 2017.
    over_select: ask so many times the goal (goal: of the fraction, if there is none), close at the goal.
    cohort: "list" names the devices that are asked; with "draw", or if they are too many to list, each device draws.
    mode: "sync", or "async": rounds are buffers that close at the goal, whatever round their updates are of (FedBuff:
        Nguyen et al. 2022, arXiv:2106.06639).
    late: an update that comes after its round is dropped, or folded into the open round with less weight; in
        asynchronous rounds always folded.
    late_rounds: how many rounds after its own an update is folded in, but into none that only evaluates.
    updates_per_s: devices spread their reports so that no more come (None: as many as are measured to be taken).
    expect: the first round waits for so many devices, at most one deadline long.
    rounds, target_accuracy: when all is done.
    evaluate_every: of so many rounds the last only evaluates the model, on what the devices hold out.
    """

    deadline_s: float = 60.0
    min_reports: int = 1
    goal: Annotated[int, Meta(ge=1)] | None = None
    fraction: float = 1.0
    over_select: Annotated[float, Meta(ge=1)] | None = None
    cohort: Literal["list", "draw"] = "list"
    mode: Literal["sync", "async"] = "sync"
    late: Literal["drop", "fold"] = "drop"
    late_rounds: Annotated[int, Meta(ge=1, le=MAX_LATE_ROUNDS)] = 3
    updates_per_s: float | None = None
    expect: int = 0
    rounds: int | None = None
    target_accuracy: float | None = None
    evaluate_every: int | None = None

    def mode_of(self, round: int) -> Mode:
        """Of the round of this number, so that it is the same after a restart."""
        return "evaluate" if self.evaluate_every and round % self.evaluate_every == 0 else "train"

    def check_evaluation(self, holdout: float) -> None:
        """UsageError if no round could only evaluate, where some should; devices hold out the share `holdout`."""
        if self.evaluate_every and not holdout:
            raise UsageError("rounds that only evaluate need a holdout above 0, or [evaluate] devices = true")
        if self.evaluate_every and self.mode == "async":
            raise UsageError("asynchronous rounds never stop to evaluate, each update brings scores: leave `every` out")

    @property
    def window(self) -> int:
        """How many rounds after its own an update still counts."""
        return self.late_rounds if self.late == "fold" or self.mode == "async" else 0
