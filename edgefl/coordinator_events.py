"""Configuration, events and actions that only an aggregator's host knows; shared ones: protocol/machine.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from .history import RoundRecord
from .protocol.messages import MAX_LATE_ROUNDS


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
    late_rounds: how many rounds after its own an update is folded in.
    expect: the first round waits for so many devices, at most one deadline long.
    rounds, target_accuracy: when all is done.
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
    expect: int = 0
    rounds: int | None = None
    target_accuracy: float | None = None

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
    """Event: loss and accuracy on the test set; None where there is none."""

    loss: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, eq=False)
class Commit:
    """Action: make the round's record, and its params if it has any, durable before carrying out what follows."""

    record: RoundRecord
    params: np.ndarray | None


@dataclass(frozen=True)
class Finished:
    """Action: there is no further round."""

    reason: str
