"""Spilled: the base of rules of each coordinate's own column, such as a weighted median.

Updates are decoded and written to a spill (spill.py); `finish` hands them to `rule` in chunks of coordinates.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .kept import Kept


class Spilled(Kept):
    """A subclass has `rule`. Memory is one decoded update and one chunk, whatever the number of updates."""

    def finish(self) -> np.ndarray:
        assert self._spill is not None
        out = np.empty(self._num_params, np.float32)
        weights = self._spill.weights
        for where, rows in self._spill.chunks():
            out[where] = self.rule(rows, weights)
        return out

    @abstractmethod
    def rule(self, deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(c,) float32 from `deltas`, (k, c) float32: k updates at c neighbouring coordinates; `weights` is (k,) int64.

        Updates are in the order of their devices' names. Each coordinate must depend on its own column only: how many
        come at once is not defined. `deltas` may be changed in place.
        """
