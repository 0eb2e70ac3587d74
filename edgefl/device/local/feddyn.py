"""FedDyn on a device; the formulas are in edgefl/strategies/whole/feddyn.py. Slot `control`: h_k, (P,) float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...errors import UsageError
from .rule import Learned, Rule, Work, pack


class FedDyn(Rule):
    """A device that takes part for the first time, or has lost its slot, begins with h_k = 0, as in the paper."""

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < float("inf"):
            raise UsageError(f"feddyn: alpha is {alpha:g}: a number above 0 is needed")
        self._alpha = alpha

    def train(self, work: Work) -> Learned:
        kept = work.vector("control")
        own = np.zeros_like(work.params) if kept is None else kept
        learned = work.fit(correction=-own, prox_mu=self._alpha)

        def keep(sent: np.ndarray, received: Callable[[], np.ndarray]) -> Mapping[str, bytes]:
            """Under error feedback the exact delta, since the aggregator gets the rest later; else what it got."""
            new = own - np.float32(self._alpha) * (sent if work.feedback else received())
            new[work.trainer.plan.num_trainable :] = 0
            return {"control": pack(new)}

        return Learned(learned.delta, learned.steps, learned.loss, keep)
