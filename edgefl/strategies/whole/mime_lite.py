"""Mime-lite: the momentum of all devices' gradients, held still in every local step (Karimireddy et al. 2020,
arXiv:2008.03606, Algorithm 1 without the control variate, with momentum SGD).

    device   y ← y − η ((1 − beta) ∇F_k(y; ξ) + beta m) in each of K_k steps;   Δ_k = y − w
             G_k = −η K_k (1 − beta) ∇F_k(w), over all its examples, goes up behind Δ_k
    server   w ← w + server_lr · mean_S Δ_k;    m ← beta m − mean_S G_k / (η K_k) = beta m + (1 − beta) mean_S ∇F_k(w)

The paper's means are over devices, each alike, and its server_lr is 1. It takes Adam's and AdaGrad's statistics too,
which would need a step of its own for each param.

G_k is the gradient in the units of a delta: how far K_k steps of it would move the model. So one bound on the length of
an update, on the device and here, holds both of its halves, and an update whose influence is bounded counts in m by the
share that is left, as it does in the model. G_k is divided by K_k, so a device that claims few examples may still move
m further than others. What a codec drops of G_k, the device scales by its steps then and now (codecs/feedback.py): else
it would come back too heavy where they have become fewer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..base import Update, below_one
from ..fit import Fit
from ..local import LocalRule
from .uniform import Uniform

SIDE, SENT = "momentum", "gradient"
_OWN = "its momentum takes the place of the devices' own"
_OWN_MODEL = "its momentum is of gradients at the round's own model"
FIT = Fit(
    without={
        "async": _OWN_MODEL, "late": _OWN_MODEL, "momentum": _OWN, "nesterov": _OWN, "adam": _OWN,
        "clip": "the gradient over all examples is not clipped as those of the steps would be",
        "noisy": "what a codec errs by would be in every step of all devices",
        "personal": "its momentum is of the whole model",
    }
)  # fmt: skip


class MimeLite(Uniform):
    """State: `momentum`, m, (P,) float32."""

    fit = FIT
    keeps = SIDE
    sides = (SIDE,)
    sent_sides = (SENT,)

    def __init__(self, beta: float = 0.9, server_lr: float = 1.0) -> None:
        super().__init__("mime-lite", server_lr)
        self._beta = float(below_one("beta", beta))
        self.local = LocalRule("mime-lite", {"beta": self._beta})

    def broadcast(self) -> Mapping[str, np.ndarray]:
        return {SIDE: self.kept}

    def parts(self, update: Update) -> tuple[np.ndarray, np.ndarray]:
        delta, gradient = np.split(update.delta(2 * len(self._params)), 2)
        return delta, gradient

    def scale(self, update: Update) -> float:
        return self.share(update) / (self.train.lr_in(self._round) * update.steps)

    def conclude(self, mean: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        self.kept = self.trained(self._beta * self.kept.astype(np.float64) - total / count)
        return mean
