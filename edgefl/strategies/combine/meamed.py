"""Meamed: the mean of the k − f values nearest to each coordinate's median (Xie et al. 2018, arXiv:1802.10116)."""

from __future__ import annotations

import numpy as np

from ... import _core
from ..rule import Rule


class Meamed(Rule):
    by_column = True
    needs_gram = False

    def columns(self, rows: np.ndarray, f: int) -> np.ndarray:
        _core.sort_columns(rows)
        out = np.empty(rows.shape[1], np.float32)
        _core.mean_nearest(out, rows, len(rows) - f)
        return out
