"""Closing: whether a round ends at its deadline, and the model that it gives, or no model. No I/O.

Part of RoundCoordinator, which decides when a round ends, commits the model and announces it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from ..history_record import RoundRecord
from ..machine import Note
from ..strategies import State, Strategy
from .devices.standing import Standing
from .opening import DEADLINES
from .updates.tally import Tally


@dataclass(frozen=True, eq=False)
class Candidate:
    """(P,) float32 `params` that may become the next model, and what the strategy's state was `before` them."""

    params: np.ndarray
    before: State


@dataclass(frozen=True, eq=False)
class Closing:
    """A candidate that waits for its scores, the `record` of its round so far, and the `tally` of that round; None if
    no round was open when the operator ordered it. `order` is to be answered; "" if there was none."""

    candidate: Candidate
    record: RoundRecord
    tally: Tally | None
    order: str = ""


@dataclass(frozen=True, eq=False)
class Closed:
    """A round that is over: its `record`, (P,) float32 `params` if it made a model, the saved late updates `drop` that
    need not be kept any longer, by device and round; and the `order` that is to be answered."""

    record: RoundRecord
    params: np.ndarray | None
    drop: list[tuple[str, int]]
    order: str = ""


def conclude(tally: Tally, strategy: Strategy, record: RoundRecord) -> tuple[Candidate | None, RoundRecord, list[Note]]:
    """The candidate, or None; `record`, abandoned if the strategy's params are not finite; what to log.

    A strategy that gave such params goes back to its state before them.
    """
    if record.state == "abandoned":
        return None, record, [Note("warning", f"round {tally.round} abandoned: {record.why}", round=tally.round)]
    if record.state == "evaluated":
        return None, record, []
    before = strategy.state()
    params = strategy.finish()
    if np.isfinite(params).all():
        return Candidate(params, before), record, []
    strategy.restore(before)
    tally.spoil_folded()
    why = "the averaged model is not finite: lower lr or server_lr"
    record = msgspec.structs.replace(record, state="abandoned", version=tally.version, why=why)
    return None, record, [Note("error", f"round {tally.round}: {why}", round=tally.round)]


def at_deadline(tally: Tally, standing: Standing, present: list[str], *, deadline_s: float, now: float) -> list[str]:
    """The devices that may still report, if the round goes on for another deadline: those that it waits for, and of
    those that are `present` and can be asked any others. A new number would make all of them begin again.

    No round is kept going by a device that has not earned waiting, or that takes longer than all deadlines together;
    nor by a slow one, where a new round could ask others.
    """
    if tally.deadlines >= DEADLINES:
        return []
    if now - tally.opened_at > standing.working_s(tally.times) and not all(map(tally.cohort.asks, present)):
        return []
    most_s = DEADLINES * deadline_s
    others = [device for device in present if tally.lacks(device, standing.can_report(device, most_s))]
    return sorted({*tally.waiting, *others})
