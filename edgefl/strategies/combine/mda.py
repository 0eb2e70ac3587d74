"""MDA: the mean of the k − f updates with the smallest diameter (El Mhamdi et al. 2021, arXiv:2008.00742).

All subsets are looked at, so there may be at most `SUBSETS`. Of equal diameters the first subset counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from ..rule import Facts, Rule, chosen

SUBSETS = 100_000


class Mda(Rule):
    def most_rows(self, assumed: Callable[[int], int]) -> int | None:
        rows = 1
        while rows < 10_000 and math.comb(rows + 1, min(assumed(rows + 1), self.most(rows + 1))) <= SUBSETS:
            rows += 1
        return rows

    def weights(self, facts: Facts) -> np.ndarray:
        k, squares = len(facts.gram), facts.squares
        best, least = np.arange(k - facts.f), math.inf
        for subset in combinations(range(k), k - facts.f):
            rows = np.array(subset)
            diameter = squares[rows[:, None], rows].max()
            if diameter < least:
                best, least = rows, diameter
        return chosen(best, k)
