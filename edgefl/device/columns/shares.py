"""Shares: what a device tells of its columns where a profile has noise (protocol/profile_terms.py). In one pass.

Every number is a mean or a share, so it does not grow with the examples, and values beyond a column's range count as
its ends. Numbers that are not finite, such as blanks, are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...core.columns import Columns
from ...core.plan import Plan
from ...protocol.profile_terms import MOMENTS, ProfileTerms
from .statistics import labels_of, rows_of


def shares_of(
    plan: Plan, x: np.ndarray, y: np.ndarray, profile: ProfileTerms, *, wanted: Callable[[], bool] = lambda: True
) -> NDArray[np.float32]:
    """(d,) of x (n, *input shape) and y (n, ...). `wanted` is asked between chunks; Cancelled."""
    count, bins = profile.columns, profile.bins
    ranges = np.array([profile.range_of(at) for at in range(count)]).reshape(count, 2)
    middle, half = ranges.mean(1), (ranges[:, 1] - ranges[:, 0]) / 2
    values, found = np.zeros(count), np.zeros((count, MOMENTS + bins))
    for rows in rows_of(plan, x, wanted) if Columns.of(plan).number else ():
        there = np.isfinite(rows)
        u = np.clip((np.where(there, rows, middle) - middle) / half, -1.0, 1.0)
        values += there.sum(0)
        found[:, 1] += np.where(there, u, 0.0).sum(0)
        found[:, 2] += np.where(there, u * u, 0.0).sum(0)
        if bins:
            key = np.minimum(((u + 1) / 2 * bins).astype(np.int64), bins - 1)
            np.add.at(found, (np.nonzero(there)[1], MOMENTS + key[there]), 1)
    found /= np.maximum(values, 1)[:, None]
    found[:, 0] = values > 0
    labels, told = np.zeros(profile.labels), labels_of(plan, y)
    known = told.keys < profile.labels
    labels[told.keys[known]] = told.counts[known] / max(1, int(told.counts.sum()))
    return np.concatenate((labels, found.reshape(-1))).astype(np.float32)
