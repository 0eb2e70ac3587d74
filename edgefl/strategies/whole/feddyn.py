"""FedDyn: dynamic regularization (Acar et al. 2021, arXiv:2111.04263, Algorithm 1).

    device   minimizes F_k(y) − ⟨h_k, y⟩ + (alpha/2) ‖y − w‖²;   h_k ← h_k − alpha Δ_k;   Δ_k = y − w
    server   h ← h − (alpha/N) Σ_S Δ_k;                          w ← w + mean_S Δ_k − h / alpha

h is the mean of the h_k.
"""

from __future__ import annotations

import numpy as np

from ..base import rate
from ..fit import Fit
from ..local import LocalRule
from .uniform import Uniform

FIT = Fit(
    without={
        "prox": "alpha is its pull towards the round's model",
        "unfed": "what a codec drops would stay in h for good",
        "personal": "what it keeps is of the whole model",
    },
    needs={"expect": "what it keeps is a mean over all devices"},
)


class FedDyn(Uniform):
    """State: `mean`, h, (P,) float32."""

    fit = FIT
    keeps = "mean"

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__("feddyn", 1.0)
        self._alpha = float(rate("alpha", alpha))
        self.local = LocalRule("feddyn", {"alpha": self._alpha})

    def conclude(self, mean: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        self.kept = self.trained(self.kept - self._alpha / self.devices * total)
        moved: np.ndarray = mean - self.kept.astype(np.float64) / self._alpha
        return moved
