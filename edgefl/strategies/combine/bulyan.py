"""Bulyan: Krum chooses k − 2f updates, one after the other; of each coordinate the mean of the k − 4f values nearest to
their median (El Mhamdi et al. 2018, arXiv:1802.07927).

It needs 4f + 3 reports.
"""

from __future__ import annotations

import numpy as np

from ... import _core
from ..rule import Facts, Rule
from .krum import krum_scores


class Bulyan(Rule):
    by_column = True

    def most(self, rows: int) -> int:
        return max(0, (rows - 3) // 4)

    def weights(self, facts: Facts) -> np.ndarray:
        squares, left, found = facts.squares, list(range(len(facts.gram))), []
        for _ in range(len(left) - 2 * facts.f):
            scores = krum_scores(squares[np.ix_(left, left)], len(left) - facts.f - 2)
            found.append(left.pop(int(np.argmin(scores))))
        return np.eye(len(squares))[sorted(found)]

    def columns(self, rows: np.ndarray, f: int) -> np.ndarray:
        _core.sort_columns(rows)
        out = np.empty(rows.shape[1], np.float32)
        _core.mean_nearest(out, rows, max(1, len(rows) - 2 * f))
        return out
