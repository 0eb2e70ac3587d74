"""Clip: updates longer than a norm are shortened to it; without a norm, to the median length of the round's updates."""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from ..rule import Facts
from . import Mix


class Clip(Mix):
    def __init__(self, norm: float | None = None) -> None:
        if norm is not None and (not isinstance(norm, int | float) or isinstance(norm, bool) or not 0 < norm < np.inf):
            raise UsageError(f"norm is {norm!r}: give a number above 0")
        self._norm = norm

    def weights(self, facts: Facts) -> np.ndarray:
        norms = facts.norms
        return np.diag(shortened(norms, float(np.median(norms)) if self._norm is None else self._norm))


def shortened(norms: np.ndarray, most: float) -> np.ndarray:
    """(k,) float64: the factors that leave no norm above `most`."""
    factors: np.ndarray = np.minimum(1.0, most / np.maximum(norms, np.finfo(float).tiny))
    return factors
