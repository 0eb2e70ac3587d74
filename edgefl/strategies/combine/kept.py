"""Kept: the base of rules that need every update of a round at once. Updates are decoded and written to a spill."""

from __future__ import annotations

import numpy as np

from ..._core import crc32c
from ...core.accumulator import MAX_WEIGHT
from ...errors import CodecError
from ..base import Site, Update
from ..spill import Spill
from . import Combine


class Kept(Combine):
    """A subclass has `finish`. Memory is one decoded update, whatever the number of updates."""

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
        key = update.device, update.staleness, crc32c(update.payload)
        self._spill.add(key, delta, update.num_examples)
