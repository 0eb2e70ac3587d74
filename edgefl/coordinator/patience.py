"""Patience: how long a round waits for the others once it has enough reports. No I/O. Part of Tally.

It depends on how long devices took in earlier rounds (standing.py). Newcomers have no such time. If a round waits for
any, it has no end but the deadline until as many devices have reported as it still waits for. From then on their
times tell how long a newcomer may take: as many times longer as a device that is just not slow.
"""

from __future__ import annotations

import math
from bisect import insort

from .devices.standing import PATIENCE
from .opening import Opening


class Patience:
    """`known`: the times of this round are those that its devices took; else another process may have opened it."""

    def __init__(self, opening: Opening, *, known: bool) -> None:
        self._opening, self._known = opening, known
        self._times: list[float] = []  # sorted

    def note(self, seconds: float) -> None:
        """An update has been counted, so long after the round opened."""
        if self._opening.newcomers:
            insort(self._times, seconds)

    def lasts_s(self, counted: int, waiting: int) -> float:
        """For so long a round waits that has `counted` updates, and waits for so many more."""
        known_s = self._opening.patience_s
        if not self._opening.newcomers:
            return known_s
        if not (self._known and self._times) or counted < waiting:
            return math.inf
        return max(known_s, PATIENCE * self._times[len(self._times) // 2])
