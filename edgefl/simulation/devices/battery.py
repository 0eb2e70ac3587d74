"""Battery: what a simulated device has left, as a function of time and of what it has spent. No clock of its own.

Below its reserve a device pauses, as an agent does whose owner has it train on mains power only; it goes on once it has
charged HYSTERESIS more. An empty battery ends its power until then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .faults import HOUR_S
from .hours import Hours, share_of

HYSTERESIS = 0.1  # of the capacity
HORIZON_H = 24 * 60  # hours that are looked ahead
TINY = 1e-9  # of the capacity: less is rounding


@dataclass(frozen=True)
class Cell:
    """A battery, its charger and what drains it all the time. Joules, watts; `reserve` is a share of the capacity."""

    capacity_j: float
    reserve: float
    idle_w: float
    charge_w: float
    charge_hours: Hours


class Battery:
    """`level_j` at the time `at`. `shift_s`: how far the device's clock is ahead of UTC."""

    def __init__(self, cell: Cell, level_j: float, shift_s: float) -> None:
        self.cell, self._shift_s = cell, shift_s
        self._level_j, self._at = level_j, 0.0

    def share(self, now: float) -> float:
        """How full it is."""
        self._carry(now)
        return self._level_j / self.cell.capacity_j

    def spend(self, joules: float, now: float) -> None:
        """Take so much from it."""
        self._carry(now)
        self._level_j = max(0.0, self._level_j - joules)

    def reaches(self, share: float, now: float) -> float:
        """When it is at this share next, of itself; infinity if that is beyond the horizon."""
        self._carry(now)
        target, level, at = share * self.cell.capacity_j, self._level_j, now
        for _ in range(HORIZON_H):
            until, power = self._next_hour(at), self._power(at)
            gain = power * (until - at)
            if (target - level) * gain > 0 and abs(gain) >= abs(target - level):
                return at + (target - level) / power
            level, at = min(self.cell.capacity_j, max(0.0, level + gain)), until
        return math.inf

    def _carry(self, now: float) -> None:
        while self._at < now:
            until = min(now, self._next_hour(self._at))
            level = self._level_j + self._power(self._at) * (until - self._at)
            self._level_j, self._at = min(self.cell.capacity_j, max(0.0, level)), until

    def _next_hour(self, at: float) -> float:
        until = (math.floor((at + self._shift_s) / HOUR_S) + 1) * HOUR_S - self._shift_s
        return until if until > at else at + HOUR_S

    def _power(self, at: float) -> float:
        share = share_of(self.cell.charge_hours, at + self._shift_s + 1e-6)
        return share * self.cell.charge_w - self.cell.idle_w
