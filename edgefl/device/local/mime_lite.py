"""Mime-lite on a device; the formulas are in edgefl/strategies/whole/mime_lite.py. It keeps nothing.

A step of (1 − beta) g + beta m at η is one of g + (beta / (1 − beta)) m at (1 − beta) η: a correction that is the same
in every step, and a lower rate. Weight decay and FedProx's pull are parts of g, so the lower rate is theirs too; at w
the pull is 0 and the decay is decay · w, which the gradient over all examples therefore has.
"""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from .rule import Learned, Rule, Work


class MimeLite(Rule):
    gradients = 1
    sent_sides = ("gradient",)

    def __init__(self, beta: float) -> None:
        if not 0 <= beta < 1:
            raise UsageError(f"mime-lite: beta is {beta:g}: a number from 0 to below 1 is needed")
        self._beta = beta

    def train(self, work: Work) -> Learned:
        momentum = work.side("momentum")
        gradient = self._gradient(work)
        lr = (1 - self._beta) * work.train.lr
        learned = work.fit(lr=lr, correction=np.float32(self._beta / (1 - self._beta)) * momentum)
        sent = np.float32(-lr * learned.steps) * gradient
        count = 1 / (work.train.lr * learned.steps)  # as the strategy's `scale`
        return Learned(learned.delta, learned.steps, learned.loss, sides={"gradient": sent}, sides_count=count)

    def _gradient(self, work: Work) -> np.ndarray:
        """Of the loss over all examples and of weight decay, at the round's model; (P,) float32."""
        work.check()
        gradient: np.ndarray = work.trainer.gradient(work.params, work.shares.x, work.shares.y)
        trained = slice(0, work.trainer.plan.num_trainable)
        gradient[trained] += np.float32(work.train.weight_decay) * work.params[trained]
        return gradient
