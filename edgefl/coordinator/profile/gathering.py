"""Gathering: the column statistics of one profile round, and what follows from all of them. No I/O.

Bins and labels are summed as whole numbers, and shown where `min_devices` devices or more have them; if that hides one
alone, the rarest other one is hidden too, or the total would tell it.

Mean and deviation of a column are those of all values together:

    M = Σ n m / Σ n        V = Σ n (v + (m - M)²) / Σ n        n values, mean m and variance v of each device

Where influence is bounded (`[admission] influence`: with keys), one device must not choose them. There n, m and v of
the t devices that are furthest out on either side count as those of the next one, with t = max(min_devices - 1, a tenth
of the devices), and less than half of them. So t liars move M at most as far as honest devices' own means lie apart,
and V no further than the largest honest one and the square of that distance. Sums are rounded once (math.fsum), so the
order of reports makes no difference.
"""

from __future__ import annotations

import math

import numpy as np

from ...core.columns import Columns
from ...core.plan import Plan
from ...errors import ProtocolError
from ...profiles import Bin, ColumnProfile, LabelProfile, Profile
from ...protocol import statistics
from ...protocol.statistics import BINS, MOST_LABELS, Counts, Statistics
from ...protocol.update_header import UpdateHeader
from ...settings import FeatureSettings

ROOM = 64 * 2**20  # bytes for what is kept of each device
ROW = 24  # bytes of a column
LEAST = 1e-6  # of its mean: a column that deviates less is constant, as far as float32 can tell


class Gathering:
    """`capacity`: how many devices there is room for. `bounded`: few devices must not choose the result."""

    def __init__(self, plan: Plan, settings: FeatureSettings, *, bounded: bool) -> None:
        self._columns, self._settings, self._bounded = Columns.of(plan), settings, bounded
        self._values = math.prod(plan.input_shape) // max(1, self._columns.number)  # of a column, in each example
        count = self._columns.number
        self.capacity = max(settings.min_devices, ROOM // (ROW * max(1, count)))
        self._rows: list[np.ndarray] = []  # of each device: (3, columns) n, m, v
        self._examples = 0
        self._bins = np.zeros((2, count, 2 * BINS + 1), np.int64)  # values, and devices
        self._labels = np.zeros((2, MOST_LABELS), np.int64)

    def add(self, header: UpdateHeader, payload: memoryview) -> None:
        """One device's report; ProtocolError, with nothing changed, if no data can be behind it."""
        examples = header.num_examples
        told = statistics.decode(
            payload, columns=self._columns.number, most_values=examples * self._values,
            most_labels=examples * self._values * max(1, self._columns.number),
        )  # fmt: skip
        if len(self._rows) >= self.capacity:
            raise ProtocolError(f"there is no room for more than {self.capacity} reports: rejected", "room")
        self._rows.append(_row(told))
        self._examples += examples
        for at, column in enumerate(told.columns):
            _count(self._bins[:, at], column.bins, first=-BINS)
        _count(self._labels, told.labels, first=0)

    def result(self, round: int) -> Profile:
        """What all devices have told together."""
        rows = np.array(self._rows).reshape(len(self._rows), 3, self._columns.number)
        found = (self._column(at, rows[:, :, at]) for at in range(self._columns.number))
        labels = [
            LabelProfile(int(at), int(self._labels[0, at]), int(self._labels[1, at]))
            for at in shown(self._labels, self._settings.min_devices)
        ]
        return Profile(
            round, len(self._rows), self._examples, self._settings.min_devices, self._bounded,
            [column for column in found if column is not None], labels,
        )  # fmt: skip

    def _column(self, at: int, rows: np.ndarray) -> ColumnProfile | None:
        """`rows` (devices, 3); None if too few devices have values."""
        rows = rows[rows[:, 0] > 0]
        least = self._settings.min_devices
        if len(rows) < least:
            return None
        if self._bounded:
            rows = _trimmed(rows, min(max(least - 1, len(rows) // 10), (len(rows) - 1) // 2))
        mean, variance = _pooled(rows)
        keys = shown(self._bins[:, at], least)
        bins = [_bin(int(key), self._bins[:, at]) for key in keys]
        ends = (bins[0].low, bins[-1].high) if bins else (None, None)
        values = int(self._bins[0, at].sum())
        return ColumnProfile(at, len(rows), values, mean, math.sqrt(variance), *ends, bins)


def scaling_of(profile: Profile, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each of `count` columns (count,) float32; a column that is not shown stays as it is, and a
    constant one becomes 0."""
    mean, scale = np.zeros(count, np.float32), np.ones(count, np.float32)
    for column in profile.columns:
        mean[column.column] = column.mean
        if column.deviation > LEAST * abs(column.mean):
            scale[column.column] = 1 / max(column.deviation, 1e-30)
    return mean, scale


def _row(told: Statistics) -> np.ndarray:
    rows = [(column.values, column.mean, column.variance) if column.values else (0, 0, 0) for column in told.columns]
    moments: np.ndarray = np.array(rows, float).reshape(-1, 3).T
    return moments


def _count(into: np.ndarray, counts: Counts, *, first: int) -> None:
    """into (2, keys): add the counts, and one device."""
    into[0, counts.keys - first] += counts.counts
    into[1, counts.keys - first] += 1


def shown(counts: np.ndarray, least: int) -> np.ndarray:
    """counts (2, keys): the entries that may be shown, in order."""
    there = counts[1] > 0
    shown = there & (counts[1] >= least)
    if (there & ~shown).sum() == 1 and shown.any():
        shown[np.argmin(np.where(shown, counts[0], np.iinfo(np.int64).max))] = False
    return np.flatnonzero(shown)


def _bin(at: int, counts: np.ndarray) -> Bin:
    low, high = (edge if math.isfinite(edge) else None for edge in statistics.bin_edges(at - BINS))
    return Bin(low, high, int(counts[0, at]), int(counts[1, at]))


def _trimmed(rows: np.ndarray, t: int) -> np.ndarray:
    """rows (devices, 3), with n and v at most, and m between, what t devices exceed."""
    ranked = np.sort(rows, axis=0)
    low = np.array([0.0, ranked[t, 1], 0.0])
    trimmed: np.ndarray = np.clip(rows, low, ranked[-1 - t])
    return trimmed


def _pooled(rows: np.ndarray) -> tuple[float, float]:
    """Mean and variance of all values."""
    n, m, v = rows.T
    total = math.fsum(n)
    mean = math.fsum(n * m) / total
    return mean, math.fsum(n * (v + (m - mean) ** 2)) / total
