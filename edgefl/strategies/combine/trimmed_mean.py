"""Trimmed mean: of each coordinate without the f smallest and f largest values (Yin et al. 2018, arXiv:1803.01498)."""

from __future__ import annotations

import numpy as np

from ... import _core
from ..rule import Rule


class TrimmedMean(Rule):
    by_column = True
    needs_gram = False

    def columns(self, rows: np.ndarray, f: int) -> np.ndarray:
        _core.sort_columns(rows)
        out = np.empty(rows.shape[1], np.float32)
        _core.mean_rows(out, rows, f, len(rows) - f)
        return out
