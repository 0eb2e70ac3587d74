"""FedCM on a device; the formulas are in edgefl/strategies/whole/fedcm.py. It keeps nothing."""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from .rule import Learned, Rule, Work


class FedCM(Rule):
    """A step of alpha g + (1 - alpha) m is one of g + ((1 - alpha) / alpha) m at alpha times the learning rate."""

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha <= 1:
            raise UsageError(f"fedcm: alpha is {alpha:g}: a number above 0 and at most 1 is needed")
        self._alpha = alpha

    def train(self, work: Work) -> Learned:
        momentum = work.side("momentum")
        share = np.float32((1 - self._alpha) / self._alpha)
        learned = work.fit(lr=self._alpha * work.train.lr, correction=share * momentum)
        return Learned(learned.delta, learned.steps, learned.loss)
