"""Column statistics: what a device tells of its examples in a round of mode "profile", computed in one pass.

Memory is that of a few thousand values and of the bins. Numbers that are not finite, such as blanks, are left out.
Means and squared deviations of chunks are combined as Chan, Golub and LeVeque do (1983, "Algorithms for computing the
sample variance"), so that a column of large numbers that differ little loses nothing. Called by training.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ...core.columns import Columns
from ...core.plan import Plan
from ...core.targets import OF_CLASSES, WHOLE
from ...core.trainer import Cancelled
from ...protocol.statistics import (
    BINS,
    LARGEST,
    MOST_LABELS,
    SQUARE_BITS,
    SUM_BITS,
    Column,
    Counts,
    Statistics,
    bins_of,
    largest_sums,
)

CHUNK = 2**14  # values


class _Sums:
    """Of all columns so far: (C,) how many values, their means and squared deviations; (C, bins) how many in each."""

    def __init__(self, columns: int) -> None:
        self.count, self.mean, self.deviation = np.zeros(columns, np.int64), np.zeros(columns), np.zeros(columns)
        self.bins = np.zeros((columns, 2 * BINS + 1), np.int64)

    def add(self, rows: np.ndarray) -> None:
        """rows (n, C) float64."""
        there = np.isfinite(rows)
        rows = np.clip(np.where(there, rows, 0.0), -LARGEST, LARGEST)
        count = there.sum(0)
        mean = rows.sum(0) / np.maximum(count, 1)
        deviation = (np.where(there, rows - mean, 0.0) ** 2).sum(0)
        both = np.maximum(self.count + count, 1)
        apart = mean - self.mean
        self.deviation += deviation + apart**2 * (self.count / both) * count
        self.mean += apart * (count / both)
        self.count += count
        keys = bins_of(rows) + BINS + self.bins.shape[1] * np.arange(rows.shape[1])
        np.add.at(self.bins.reshape(-1), keys[there], 1)  # no array as large as all bins for each chunk

    def column(self, at: int) -> Column:
        """The whole numbers that are told of column `at`."""
        count = int(self.count[at])
        if not count:
            return Column(0, 0, 0, Counts.of(self.bins[at], first=-BINS))
        total = _on_grid(float(self.mean[at]), SUM_BITS, times=count)
        squares = -(-total * total // count) + _on_grid(float(self.deviation[at]), SQUARE_BITS)
        most, most_squares = largest_sums(count)  # which rounding may have passed
        total, squares = max(-most, min(total, most)), min(squares, most_squares)
        return Column(count, total, squares, Counts.of(self.bins[at], first=-BINS))


def _on_grid(x: float, bits: int, *, times: int = 1) -> int:
    """x · times as the nearest multiple of 2^-bits."""
    above, below = x.as_integer_ratio()
    return (2 * (above * times << bits) + below) // (2 * below)


def of_examples(
    plan: Plan, x: np.ndarray, y: np.ndarray, *, wanted: Callable[[], bool] = lambda: True
) -> Statistics:  # fmt: skip
    """x (n, *input shape) and y (n, ...), as the plan takes them. `wanted` is asked between chunks; Cancelled."""
    count = Columns.of(plan).number
    sums = _Sums(count)
    for rows in rows_of(plan, x, wanted) if count else ():
        sums.add(rows)
    return Statistics([sums.column(at) for at in range(count)], labels_of(plan, y))


def rows_of(plan: Plan, x: np.ndarray, wanted: Callable[[], bool]) -> Iterator[np.ndarray]:
    """The values of x (n, *input shape), as rows (n, C) float64 of the plan's columns; Cancelled."""
    axis, count = Columns.of(plan)
    step = max(1, CHUNK // math.prod(plan.input_shape))
    for start in range(0, len(x), step):
        if not wanted():
            raise Cancelled("statistics were cancelled: ask for them again")
        rows = np.moveaxis(x[start : start + step], axis + 1, -1).reshape(-1, count)
        yield rows.astype(np.float64)


def labels_of(plan: Plan, y: np.ndarray) -> Counts:
    """How often each label occurs; labels from `MOST_LABELS` on are left out. None of several outputs."""
    if plan.losses or plan.loss not in OF_CLASSES or y.dtype.kind not in WHOLE:
        return Counts.of(np.zeros(0, np.int64))
    known = y[(y >= 0) & (y < MOST_LABELS)].astype(np.int64)
    return Counts.of(np.bincount(known, minlength=1))
