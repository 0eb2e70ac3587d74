"""Windows over time: rows that follow each other, `window` at a time, become one example each.

A window never spans two devices, a row that was left out, or a gap in time. Its target is that of its last row. The
held-out part is the end of each device's series: windows that share rows may not lie on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Series
from .options import choice, numbers, whole_number

OPTIONS = ("window", "step", "gap", "channels")
MOST_COPIES = 100  # of one row, in as many windows
USUAL_STEPS = 3.0  # a longer time between two rows is a gap, unless gap= says what is


class Cut(NamedTuple):
    """How to cut. `gap`: seconds between two rows that are not one series; 0: three times the usual step."""

    window: int
    step: int
    gap: float
    channels_first: bool

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Cut | None:
        """window=128&step=64&gap=2.5&channels=first; None without window=. UsageError."""
        if "window" not in options:
            for name in OPTIONS:
                if name in options:
                    raise UsageError(f"data option {name}= belongs to windows: add window=ROWS")
            return None
        window = whole_number(options, "window", 1)
        step = whole_number(options, "step", 1) if "step" in options else window
        if window > MOST_COPIES * step:
            raise UsageError(f"step={step} puts each row into {window // step} windows: at most {MOST_COPIES}")
        first = choice(options, "channels", ("last", "first")) == "first"
        return cls(window, step, _gap(options), first)

    def apply(self, source: str, rows: Rows) -> Rows:
        """`rows` in windows: x (k, window, features), y and devices of the last row; DataError if none is whole."""
        n = len(rows.x)
        order = None if rows.devices is None else np.argsort(rows.devices, kind="stable")
        starts = self._starts(n, rows, order)
        if not len(starts):
            text = f"no {self.window} rows follow each other without a break"
            raise DataError(f"{source}: {text}: lower window=, raise gap=, or fill blanks with missing=mean", text)
        x = rows.x if order is None else rows.x[order]
        out = np.empty((len(starts), self.window, *x.shape[1:]), x.dtype)
        for number, start in enumerate(starts):
            out[number] = x[start : start + self.window]
        last = starts + (self.window - 1)
        last = last if order is None else order[last]
        y = None if rows.y is None else rows.y[last]
        return Rows(out, y, None if rows.devices is None else rows.devices[last])

    def series(self) -> Series:
        """What the examples have to do with each other."""
        return Series(-(-self.window // self.step) - 1, self.channels_first)

    def _starts(self, n: int, rows: Rows, order: np.ndarray | None) -> np.ndarray:
        """(k,) where windows begin, in the order of devices."""
        begins = np.zeros(n, bool)  # of a run of rows that follow each other
        begins[0] = True
        if rows.breaks is not None and len(rows.breaks):
            run = np.searchsorted(rows.breaks, np.arange(n), side="right")
            run = run if order is None else run[order]
            begins[1:] |= run[1:] != run[:-1]
        if order is not None and rows.devices is not None:
            devices = rows.devices[order]
            begins[1:] |= devices[1:] != devices[:-1]
        if rows.times is not None:
            begins[1:] |= self._leaps(rows.times if order is None else rows.times[order], begins)
        edges = np.append(np.flatnonzero(begins), n)
        runs = [np.arange(a, b - self.window + 1, self.step) for a, b in pairwise(edges)]
        return np.concatenate(runs)

    def _leaps(self, times: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """(n - 1,) whether a row comes too long after the one before it, or before it in time."""
        steps = np.diff(times)
        usual = steps[~begins[1:] & (steps > 0)]
        gap = self.gap or (USUAL_STEPS * float(np.median(usual)) if len(usual) else np.inf)
        return (steps > gap) | (steps < 0)


class Rows(NamedTuple):
    """x (n, features), y (n,) or None if the features are the targets; devices (n,); times (n,) float64 seconds;
    breaks: sorted positions of rows that do not follow on the row before them."""

    x: np.ndarray
    y: np.ndarray | None
    devices: np.ndarray | None = None
    times: np.ndarray | None = None
    breaks: np.ndarray | None = None


def _gap(options: Mapping[str, str]) -> float:
    if "gap" not in options:
        return 0.0
    if "time" not in options:
        raise UsageError("data option gap= needs time=COL, the column that has the time")
    given = numbers(options, "gap")
    if len(given) != 1 or given[0] <= 0:
        raise UsageError(f"data option gap={options['gap']}: give seconds, more than 0")
    return given[0]
