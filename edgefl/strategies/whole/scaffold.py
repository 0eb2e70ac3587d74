"""SCAFFOLD: control variates against client drift (Karimireddy et al. 2020, arXiv:1910.06378, option II).

    device   y ← y − η (g − c_k + c) in each of K_k steps;   c_k ← c_k − c − Δ_k / (η a_k);   Δ_k = y − w
    server   w ← w + server_lr · mean_S Δ_k;                 c ← c + (1/N) Σ_S (−c − Δ_k / (η a_k))

a_k is K_k, or with momentum the gain of K_k steps (local_steps.py). So the aggregator knows by how much each c_k has
changed, without a byte more from the device. The c that both subtract is what devices have decoded.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..base import Update
from ..fit import Fit
from ..local import LocalRule
from ..local_steps import momentum_gain
from .uniform import Uniform

SIDE = "control"
_OWN_MODEL = "an update goes with the control variate of its own round"
FIT = Fit(
    without={
        "async": _OWN_MODEL,
        "late": _OWN_MODEL,
        "adam": "a step of Adam has no fixed gain, so a delta does not tell the mean gradient",
        "clip": "the mean of clipped gradients is not the gradient that a control variate stands for",
        "prox": "the pull towards the round's model would be in the control variates",
        "unfed": "what a codec drops would stay in the control variates for good",
        "personal": "control variates are of the whole model",
    },
    needs={"expect": "its control variate is a mean over all devices"},
)


class Scaffold(Uniform):
    """State: `control`, c, (P,) float32."""

    fit = FIT
    keeps = SIDE
    sides = (SIDE,)
    local = LocalRule("scaffold")

    def __init__(self, server_lr: float = 1.0) -> None:
        super().__init__("scaffold", server_lr)
        self._shown = self.kept

    def broadcast(self) -> Mapping[str, np.ndarray]:
        return {SIDE: self.kept}

    def shown(self, sides: Mapping[str, np.ndarray]) -> None:
        self._shown = sides[SIDE]

    def scale(self, update: Update) -> float:
        lr = self.train.lr_in(self._round)
        return 1 / (lr * momentum_gain(self.train, lr, update.steps))

    def conclude(self, mean: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        shown = self._shown if len(self._shown) else self.kept
        self.kept = self.trained(self.kept - (count * shown.astype(np.float64) + total) / self.devices)
        return mean
