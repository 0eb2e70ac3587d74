"""Means over seeds with 95 % intervals of Student's t, and differences that are paired by seed.

Runs with one seed share the split, the first weights, and the devices that are drawn: their difference varies less than
they do, so it is what tells two strategies apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# 0.975 quantiles of Student's t for 1 to 30 degrees of freedom.
T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
Z975 = 1.959964


class Mean(NamedTuple):
    """A mean over `n` seeds, and half the width of its 95 % interval: NaN for a single seed."""

    value: float
    half: float
    n: int


def t975(freedom: int) -> float:
    """The 0.975 quantile of Student's t; beyond the table by two terms of its expansion in 1/freedom."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    z = Z975
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def mean(values: Mapping[int, float]) -> Mean:
    """Of one value a seed; seeds whose value is NaN are left out."""
    found = np.array([value for value in values.values() if math.isfinite(value)], np.float64)
    n = len(found)
    if n == 0:
        return Mean(math.nan, math.nan, 0)
    half = t975(n - 1) * float(found.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Mean(float(found.mean()), half, n)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Mean:
    """Of the differences values − others, over the seeds that both have."""
    return mean({seed: values[seed] - others[seed] for seed in values if seed in others})
