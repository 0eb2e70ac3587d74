"""Configuration, events and actions that only an aggregator's host knows; shared ones: protocol/machine.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from .errors import UsageError
from .history import RoundRecord
from .protocol.messages import MAX_LATE_ROUNDS, Mode


class RoundConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a round opens and closes.

    goal: close at so many reports (None: when all who are asked and there have reported).
    min_reports: fewer at the deadline abandon it.
    fraction: share of the present devices that is asked, C in McMahan et al. 2017.
    over_select: ask so many times the goal (goal: of the fraction, if there is none), close at the goal.
    cohort: "list" names those who are asked, at most MAX_COHORT; "draw" lets each device draw.
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


@dataclass(frozen=True, eq=False)
class Evaluate:
    """Action: answer with Evaluated for these (P,) params."""

    params: np.ndarray


@dataclass(frozen=True)
class Evaluated:
    """Event: loss and accuracy on the test set; None where there is none. `update_s`, if it is known: the processor's
    time that each update of the round took."""

    loss: float | None = None
    accuracy: float | None = None
    update_s: float | None = None


@dataclass(frozen=True, eq=False)
class Commit:
    """Action: make the round's record, and its params if it has any, durable before carrying out what follows; with
    them goes what was saved of the late updates `forget`, by device and round."""

    record: RoundRecord
    params: np.ndarray | None
    forget: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True, eq=False)
class LateUpdate:
    """A device's whole update of `round`, header and all, that came after it. `version`: what it starts from; `codec`:
    the number of what can decode it."""

    device: str
    round: int
    version: int
    codec: int
    blob: bytes


@dataclass(frozen=True, eq=False)
class SaveLate:
    """Action: make a late update durable before sending what follows: its device forgets it with the receipt."""

    update: LateUpdate


@dataclass(frozen=True)
class RecallLate:
    """Action: answer with Recalled."""


@dataclass(frozen=True, eq=False)
class Recalled:
    """Event: the late updates that were saved and are in no model yet. The host may read each from its disk as the one
    before has been added, so that memory does not grow with their number; each is taken once."""

    updates: Iterable[LateUpdate]


@dataclass(frozen=True)
class Finished:
    """Action: there is no further round."""

    reason: str


@dataclass(frozen=True)
class SaveAttempt:
    """Action: make the number of this start durable before carrying out what follows."""

    attempt: int


@dataclass(frozen=True)
class Fenced:
    """Action: another aggregator has the federation; nothing follows, and the host ends as failed."""

    reason: str
