"""Hours: when in a day something is so, as 24 shares, one for each hour. Written as windows or as a list."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ...core.seeds import derived_seed
from ...errors import UsageError
from .faults import DAY_S, HOUR_S

Hours = tuple[float, ...]  # 24 numbers from 0 to 1
ALWAYS: Hours = (1.0,) * 24
FARTHEST_H = 24 * 366  # hours that are looked through for one that is drawn
LEAST = 1 / 366  # sum of a day's shares: once a year


def read(value: str | Sequence[float], key: str) -> Hours:
    """The hours of "22-6" (windows of whole hours, separated by commas), or of 24 numbers; UsageError names `key`."""
    if not isinstance(value, str):
        if len(value) != 24 or not all(0 <= share <= 1 for share in value):
            raise UsageError(f"{key} wants 24 numbers from 0 to 1, one for each hour")
        if sum(value) < LEAST:
            raise UsageError(f"{key} comes less than once a year: make one of its 24 numbers larger")
        return tuple(map(float, value))
    if not value:
        return ALWAYS
    shares = [0.0] * 24
    for window in value.split(","):
        first, dash, last = window.strip().partition("-")
        if not (dash and first.isdecimal() and last.isdecimal() and int(first) < 24 and int(last) <= 24):
            raise UsageError(f'{key} is {value!r}: write whole hours, as in "22-6", or 24 numbers from 0 to 1')
        for hour in range(int(first), int(last) + (24 if int(last) <= int(first) else 0)):
            shares[hour % 24] = 1.0
    return tuple(shares)


class Presence:
    """Whether a device is there: in each hour with that hour's share as the probability, drawn anew each day.

    A draw depends on the seed and the hour alone, so that any time can be asked, in any order. `shift_s`: how far the
    device's clock is ahead of UTC.
    """

    def __init__(self, hours: Hours, shift_s: float, seed: int) -> None:
        self._hours, self._shift_s, self._seed = hours, shift_s, seed
        self.is_constant = all(share == 1.0 for share in hours)

    def away_until(self, now: float) -> float:
        """When the device is back, if it is away at `now`; else `now`."""
        return now if self.is_constant else self._next(now, there=True)

    def leaves_at(self, now: float) -> float | None:
        """When the device leaves next, if ever."""
        return None if self.is_constant else self._next(now, there=False)

    def _next(self, now: float, *, there: bool) -> float:
        hour = self._hour(now)
        for later in range(hour, hour + FARTHEST_H):
            if self._is_there(later) == there:
                return max(now, self._begins(later))
        return now + FARTHEST_H * HOUR_S

    def _hour(self, now: float) -> int:
        """The number of the hour at `now`. Rounding may take the quotient to a neighbour where an hour begins, and a
        device would leave and come back at that time without end."""
        hour = int((now + self._shift_s) // HOUR_S)
        if self._begins(hour) > now:
            return hour - 1
        return hour + 1 if self._begins(hour + 1) <= now else hour

    def _begins(self, hour: int) -> float:
        return hour * HOUR_S - self._shift_s

    def _is_there(self, hour: int) -> bool:
        share = self._hours[hour % 24]
        if share in (0.0, 1.0):
            return share == 1.0
        return random.Random(derived_seed(self._seed, hour)).random() < share


def share_of(hours: Hours, at: float) -> float:
    """The share of the hour that a clock shows at `at` seconds."""
    return hours[int(at % DAY_S // HOUR_S)]
