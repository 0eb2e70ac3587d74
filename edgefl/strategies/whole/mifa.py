"""MIFA: devices that are away count with their last update (Gu et al. 2021, arXiv:2106.04159).

    device   trains to Δ_k and sends d_k = Δ_k − G_k;   G_k ← G_k + d̂_k, what the aggregator decodes
    server   S ← S + Σ_S d̂_k;                           w ← w + server_lr · S / N

S is the sum of all G_k, each the last update of its device, but no single update outlives its round here. What a codec
drops of d_k is in the next d_k: error feedback would count it twice. A device that
has never been heard counts as one that has learned nothing, where the paper begins with a round of all devices.
"""

from __future__ import annotations

import numpy as np

from ..fit import Fit
from ..local import LocalRule
from .uniform import Uniform

FIT = Fit(
    without={
        "feedback": "a device sends what the aggregator lacks of its last update, which is a feedback already",
        "noisy": "a device's memory would move away from its update, not towards it",
        "personal": "what it keeps is of the whole model",
    },
    needs={"expect": "its model moves by a mean over all devices"},
)


class Mifa(Uniform):
    """State: `sum`, S, (P,) float32."""

    fit = FIT
    keeps = "sum"
    local = LocalRule("mifa")

    def __init__(self, server_lr: float = 1.0) -> None:
        super().__init__("mifa", server_lr)

    def conclude(self, mean: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        self.kept = (self.kept + total).astype(np.float32)
        moved: np.ndarray = self.kept.astype(np.float64) / self.devices
        return moved
