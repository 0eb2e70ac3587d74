"""SCAFFOLD on a device; the formulas are in edgefl/strategies/whole/scaffold.py. Slot `control`: c_k, (P,) float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...strategies.local_steps import momentum_gain
from .rule import Learned, Rule, Work, pack


class Scaffold(Rule):
    """A device that takes part for the first time, or has lost its slot, begins with c_k = 0, as in the paper."""

    def train(self, work: Work) -> Learned:
        control = work.side("control")
        kept = work.vector("control")
        own = np.zeros_like(control) if kept is None else kept
        learned = work.fit(correction=control - own)
        length = np.float32(work.train.lr * momentum_gain(work.train, work.train.lr, learned.steps))

        def keep(sent: np.ndarray, received: Callable[[], np.ndarray]) -> Mapping[str, bytes]:
            """Under error feedback the exact delta, since the aggregator gets the rest later; else what it got."""
            told = sent if work.feedback else received()
            new = own - control - told / length
            new[work.trainer.plan.num_trainable :] = 0
            return {"control": pack(new)}

        return Learned(learned.delta, learned.steps, learned.loss, keep)
