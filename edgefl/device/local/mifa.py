"""MIFA on a device; the formulas are in edgefl/strategies/whole/mifa.py. Slot `memory`: G_k, (P,) float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .rule import Learned, Rule, Work, pack


class Mifa(Rule):
    """A device that takes part for the first time, or has lost its slot, begins with G_k = 0."""

    def train(self, work: Work) -> Learned:
        kept = work.vector("memory")
        own = np.zeros_like(work.params) if kept is None else kept
        learned = work.fit()

        def keep(sent: np.ndarray, received: Callable[[], np.ndarray]) -> Mapping[str, bytes]:
            return {"memory": pack(own + received())}

        return Learned(learned.delta - own, learned.steps, learned.loss, keep)
