"""Spilled: the base of rules that need every update of a round at once, such as a coordinate-wise median.

Updates are decoded and written to a spill (spill.py); `finish` hands them to `rule` in chunks of coordinates.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ...core.accumulator import MAX_WEIGHT
from ...errors import CodecError
from ..base import Site, Update
from ..spill import Spill
from . import Combine


class Spilled(Combine):
    """A subclass has `rule`. Memory is one decoded update and one chunk, whatever the number of updates."""

    _spill: Spill | None = None

    def prepare(self, site: Site) -> None:
        self._spill = Spill(site.num_params, site.spill_bytes, reports=site.reports, folder=site.folder)

    def start(self, num_params: int) -> None:
        if self._spill is None:
            self.prepare(Site(num_params, num_params))
        assert self._spill is not None
        self._num_params = num_params
        self._spill.clear()

    def add(self, update: Update) -> None:
        """A discounted delta is scaled by the share that is left of its weight."""
        assert self._spill is not None
        if not 1 <= update.weight <= MAX_WEIGHT:
            raise CodecError(f"update with num_examples {update.weight}: a device must report 1 to {MAX_WEIGHT}")
        delta = update.delta(self._num_params)
        if update.discounted is not None:
            delta = delta * np.float32(update.discounted / update.num_examples)
        self._spill.add((update.device, update.staleness), delta, update.num_examples)

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
