"""Energy that simulated devices spend on a federation: seconds of training × active watts + bytes × joules a byte.

It is what the federation adds to a device that is on anyway: watts are those above idle. Every figure is a range, since
measurements of boards and radios differ by more than any model of them is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UsageError


@dataclass(frozen=True)
class Range:
    """From `low` to `high`."""

    low: float
    high: float

    @classmethod
    def read(cls, value: float | Sequence[float], key: str) -> Range:
        """A number, or [low, high]; UsageError names `key`."""
        ends = (value, value) if isinstance(value, int | float) else tuple(value)
        low, high = ends if len(ends) == 2 else (1.0, 0.0)
        if not 0 <= low <= high < float("inf"):
            raise UsageError(f"{key} is {value!r}: give a number from 0, or [low, high]")
        return cls(float(low), float(high))

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Appetite:
    """What work and traffic take: watts above idle while training, and joules a byte each way."""

    watts: Range
    up: Range
    down: Range

    def of(self, seconds: float, up: int, down: int) -> Range:
        """The joules of so many seconds of training and so many bytes."""
        low = seconds * self.watts.low + up * self.up.low + down * self.down.low
        return Range(low, seconds * self.watts.high + up * self.up.high + down * self.down.high)


class Meter:
    """The joules of all devices since the last reading."""

    def __init__(self) -> None:
        self._low = self._high = 0.0

    def add(self, joules: Range) -> None:
        self._low += joules.low
        self._high += joules.high

    def read(self) -> tuple[float, float]:
        """The range since the last reading; the meter then starts from 0."""
        read = self._low, self._high
        self._low = self._high = 0.0
        return read
