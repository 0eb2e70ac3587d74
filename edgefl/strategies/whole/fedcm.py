"""FedCM: the momentum of all devices in every local step (Xu et al. 2021, arXiv:2106.10874).

    device   y ← y − η (alpha g + (1 − alpha) m) in each of K_k steps;   Δ_k = y − w
    server   w ← w + server_lr · mean_S Δ_k;                            m ← −mean_S Δ_k / (η K_k)

It is Mime-lite with momentum (mime_lite.py) but for where the gradients in m are taken: along the devices' paths, and
not at w, which takes a second vector up. Devices keep nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import UsageError
from ..base import Update, rate
from ..fit import Fit
from ..local import LocalRule
from .uniform import Uniform

SIDE = "momentum"
_OWN = "its momentum takes the place of the devices' own"
_PATH = "the momentum is the mean of what the local steps were"
FIT = Fit(
    without={
        "momentum": _OWN, "nesterov": _OWN, "adam": _OWN, "prox": _PATH,
        "noisy": "what a codec errs by would be in every step of all devices",
        "personal": "its momentum is of the whole model",
    }
)  # fmt: skip


class FedCM(Uniform):
    """State: `momentum`, m, (P,) float32."""

    fit = FIT
    keeps = SIDE
    sides = (SIDE,)

    def __init__(self, alpha: float = 0.1, server_lr: float = 1.0) -> None:
        super().__init__("fedcm", server_lr)
        if rate("alpha", alpha) > 1:
            raise UsageError(f"alpha is {alpha!r}: give a number above 0 and at most 1")
        self.local = LocalRule("fedcm", {"alpha": float(alpha)})

    def broadcast(self) -> Mapping[str, np.ndarray]:
        return {SIDE: self.kept}

    def scale(self, update: Update) -> float:
        return 1 / (self.train.lr_in(self._round) * update.steps)

    def conclude(self, mean: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        self.kept = self.trained(-total / count)
        return mean
