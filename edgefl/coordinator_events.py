"""Configuration, events and actions that only an aggregator's host knows; shared ones: protocol/machine.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from .history import RoundRecord


class RoundConfig(msgspec.Struct, frozen=True):
    """When a round opens and closes.

    goal: close at so many reports (None: when all who are asked and there have reported).
    min_reports: fewer at the deadline abandon it.
    fraction: share of the present devices that is asked, C in McMahan et al. 2017.
    over_select: ask so many times the goal (goal: of the fraction, if there is none), close at the goal.
    cohort: "list" names those who are asked, at most MAX_COHORT; "draw" lets each device draw.
    updates_per_s: devices spread their reports so that no more come (None: as many as are measured to be taken).
    expect: the first round waits for so many devices, at most one deadline long.
    rounds, target_accuracy: when all is done.
    """

    deadline_s: float = 60.0
    min_reports: int = 1
    goal: int | None = None
    fraction: float = 1.0
    over_select: float | None = None
    cohort: Literal["list", "draw"] = "list"
    updates_per_s: float | None = None
    expect: int = 0
    rounds: int | None = None
    target_accuracy: float | None = None


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
    """Action: make the round's record, and its params if it has any, durable before carrying out what follows."""

    record: RoundRecord
    params: np.ndarray | None


@dataclass(frozen=True)
class Finished:
    """Action: there is no further round."""

    reason: str
