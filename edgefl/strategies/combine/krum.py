"""Krum and Multi-Krum: the update, or the mean of the m updates, nearest to their neighbours (Blanchard et al. 2017,
arXiv:1703.02757).

The score of an update is the sum of its squared distances to the nearest k − f − 2 others.
"""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from ..rule import Facts, Rule, chosen, smallest


class Krum(Rule):
    """`chooses` m updates; 1 is Krum, None is k − f. `neighbours`: that count in a score; None: k − f − 2."""

    def __init__(self, chooses: int | None = 1, neighbours: int | None = None) -> None:
        for option, value in (("m", chooses), ("neighbours", neighbours)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"{option} is {value!r}: give a whole number above 0")
        self._chooses, self._neighbours = chooses, neighbours

    def most(self, rows: int) -> int:
        return max(0, (rows - 3) // 2)

    def weights(self, facts: Facts) -> np.ndarray:
        k = len(facts.gram)
        scores = krum_scores(facts.squares, self._neighbours or k - facts.f - 2)
        return chosen(smallest(scores, min(k, self._chooses or k - facts.f)), k)


def krum_scores(squares: np.ndarray, neighbours: int) -> np.ndarray:
    """(k,) float64 of `squares` (k, k), with at least one neighbour if there is one."""
    k = len(squares)
    others = np.sort(squares + np.diag(np.full(k, -1.0)), axis=1)[:, 1:]  # each row's own entry, -1, comes first
    scores: np.ndarray = others[:, : min(k - 1, max(1, neighbours))].sum(axis=1)
    return scores
