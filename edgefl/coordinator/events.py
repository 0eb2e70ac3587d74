"""Events and actions of RoundCoordinator: the shared ones (machine.py), and those that only an aggregator knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from .. import machine
from ..history import RoundRecord
from ..strategies import State


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
    """Action: make the round's record durable before carrying out what follows, and in the same transaction its params
    if it has any, the strategy's `state` that belongs to these params, and the removal of the saved late updates
    `drop`, by device and round."""

    record: RoundRecord
    params: np.ndarray | None
    drop: Sequence[tuple[str, int]] = ()
    state: State = field(default_factory=dict)


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
    """Action: make a late update durable before sending what follows: its device drops it at the receipt."""

    update: LateUpdate


@dataclass(frozen=True)
class ReloadLate:
    """Action: answer with ReloadedLate."""


@dataclass(frozen=True, eq=False)
class ReloadedLate:
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


Event: TypeAlias = machine.Event | Evaluated | ReloadedLate
Action: TypeAlias = machine.Action | Evaluate | Commit | SaveLate | ReloadLate | Finished | SaveAttempt | Fenced
