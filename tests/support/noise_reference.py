"""The naive versions: one number at a time, in fractions (arXiv:2004.00010, algorithms 1 to 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np


class OneAtATime:
    """`below(n)` is a whole number from 0 to n - 1, each as likely."""

    def __init__(self, below: Callable[[int], int]) -> None:
        self._below = below

    def _bernoulli(self, p: Fraction) -> bool:
        return self._below(p.denominator) < p.numerator

    def _exp_small(self, gamma: Fraction) -> bool:
        k = 1
        while self._bernoulli(gamma / k):
            k += 1
        return k % 2 == 1

    def _exp(self, gamma: Fraction) -> bool:
        while gamma > 1:
            if not self._exp_small(Fraction(1)):
                return False
            gamma -= 1
        return self._exp_small(gamma)

    def _laplace(self, t: int) -> int:
        while True:
            low = self._below(t)
            if not self._exp_small(Fraction(low, t)):
                continue
            high = 0
            while self._exp_small(Fraction(1)):
                high += 1
            size = low + t * high
            negative = self._below(2) == 1
            if not (negative and size == 0):
                return -size if negative else size

    def gaussian(self, sigma2: Fraction) -> int:
        t = math.isqrt(sigma2.numerator // sigma2.denominator) + 1
        while True:
            y = self._laplace(t)
            if self._exp((abs(y) - sigma2 / t) ** 2 / (2 * sigma2)):
                return y


def pmf(sigma: float, reach: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(values, chances) of the discrete Gaussian between -reach and reach, by default all but 1e-30."""
    reach = math.ceil(12 * sigma) + 2 if reach is None else reach
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x.astype(float) ** 2) / (2 * sigma**2))
    return x, weight / weight.sum()
