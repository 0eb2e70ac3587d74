"""FedAvg: the mean of the devices' deltas, weighted by their n_k (McMahan et al. 2017, Algorithm 1)."""

from __future__ import annotations

import numpy as np

from .base import Strategy, learning_rate


class FedAvg(Strategy):
    """w ← w + server_lr · Σ n_k Δ_k / Σ n_k. `server_lr` 1 is the paper's."""

    name = "fedavg"

    def __init__(self, server_lr: float = 1.0) -> None:
        self.server_lr = learning_rate("server_lr", server_lr)

    def apply(self, params: np.ndarray, mean_delta: np.ndarray) -> np.ndarray:
        return params + self.server_lr * mean_delta
