"""Tally: how many rows of a source were read, and how many of them could not be used. Counts, and never a value.

A device goes on learning from the rest, and says the counts. Beyond a part of the rows (`bad=`) it refuses, since then
the SPEC is wrong more often than the rows are.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..errors import DataError, UsageError
from .options import numbers

BAD = 0.25  # of the rows


class Tally(Struct, frozen=True):
    """`rows` were read. `bad` ones can't be understood; `blank` ones lack a cell; both are left out. `filled` cells
    were blank and have a number now. `late` files are not whole yet. `first` tells the place of the first bad row, for
    the device's own log; it may quote the data."""

    rows: int = 0
    bad: int = 0
    blank: int = 0
    filled: int = 0
    late: int = 0
    first: str = ""

    def text(self, unit: str = "row") -> str:
        """The counts that an operator should see; "" if there are none."""
        said = []
        if self.bad:
            said.append(f"{self.bad} of {self.rows} {unit}s can't be understood and are left out")
        if self.blank:
            said.append(f"{self.blank} of {self.rows} {unit}s have blanks and are left out")
        if self.late:
            said.append(f"{self.late} files are not whole yet and are left for later")
        return "; ".join(said)


class Count:
    """A Tally in the making."""

    def __init__(self, options: Mapping[str, str], unit: str) -> None:
        self.rows = self.blank = self.filled = self.bad = self.late = 0
        self._unit, self._limit = unit, _limit(options)
        self._first: DataError | None = None

    def refuse(self, error: DataError) -> None:
        """One more row that can't be understood."""
        self.bad += 1
        self._first = self._first or error

    def close(self) -> Tally:
        """The Tally; DataError, that of the first bad row, if there are too many."""
        first = self._first
        if first is not None and self.bad > self._limit * self.rows:
            more = f"; {self.bad} of {self.rows} {self._unit}s can't be used" if self.bad > 1 else ""
            raise DataError(f"{first}{more}", f"{first.safe}{more}" if first.safe else "")
        return Tally(self.rows, self.bad, self.blank, self.filled, self.late, str(first or ""))


def _limit(options: Mapping[str, str]) -> float:
    if "bad" not in options:
        return BAD
    given = numbers(options, "bad")
    if len(given) != 1 or not 0 <= given[0] < 1:
        raise UsageError(f"data option bad={options['bad']}: give the part of the rows that may be bad, 0 to below 1")
    return given[0]
