"""Median: of each coordinate (Yin et al. 2018, arXiv:1803.01498). Of an even number it is the mean of two."""

from __future__ import annotations

import numpy as np

from ... import _core
from ..rule import Rule


class Median(Rule):
    by_column = True
    needs_gram = False

    def columns(self, rows: np.ndarray, f: int) -> np.ndarray:
        _core.sort_columns(rows)
        out = np.empty(rows.shape[1], np.float32)
        _core.mean_rows(out, rows, (len(rows) - 1) // 2, len(rows) // 2 + 1)
        return out
