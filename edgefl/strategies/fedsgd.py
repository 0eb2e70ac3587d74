"""FedSGD: devices send one gradient over all their data, the server takes the step (McMahan et al. 2017, section 2).

With every device reporting it is gradient descent on the pooled data.
"""

from __future__ import annotations

import numpy as np

from .base import Strategy, learning_rate


class FedSGD(Strategy):
    """w ← w − lr · Σ n_k g_k / Σ n_k. A device's "delta" is minus its gradient."""

    name = "fedsgd"
    local_mode = "gradient"

    def __init__(self, lr: float = 0.1) -> None:
        self.lr = learning_rate("lr", lr)

    def apply(self, params: np.ndarray, mean_delta: np.ndarray) -> np.ndarray:
        return params + self.lr * mean_delta
