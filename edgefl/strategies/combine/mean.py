"""Mean: Σ n_k Δ_k / Σ n_k (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1), in one accumulator."""

from __future__ import annotations

import numpy as np

from ...core.accumulator import Accumulator
from ..base import Update
from . import Combine

SHARE = 2**53  # n_k |delta| up to 2^23: a thousand updates of absurd scale leave headroom for the honest ones


class Mean(Combine):
    """O(P) memory, whatever the number of updates."""

    def start(self, num_params: int) -> None:
        self.accumulator = Accumulator(num_params, share=SHARE)

    def add(self, update: Update) -> None:
        if update.decoded is None:
            update.codec.accumulate(update.payload, update.weight, self.accumulator)
        else:  # which gives the same bits
            decoded = update.decoded.astype("<f4", copy=False)
            self.accumulator.add_f32(decoded.data.cast("B"), update.weight)
        self.accumulator.dilute(update.num_examples - update.weight)

    def finish(self) -> np.ndarray:
        return self.accumulator.mean()
