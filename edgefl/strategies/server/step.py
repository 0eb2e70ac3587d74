"""Step: w ← w + η_s · Δ, plain SGD of the server (η_s as in Reddi et al. 2021, arXiv:2003.00295)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import UsageError
from ..base import Training, rate
from . import ServerOptimizer


class Step(ServerOptimizer):
    """`lr` None: the devices' learning rate. `option` is what the preset calls it."""

    def __init__(self, lr: float | None, option: str = "server_lr") -> None:
        self._option = option
        self._given = self._lr = None if lr is None else rate(option, lr)

    def defaults(self, train: Training) -> Mapping[str, Any]:
        if self._given is None:  # anew in each run of an object
            self._lr = rate(self._option, train.lr)
        return {}

    def step(self, params: np.ndarray, delta: np.ndarray) -> np.ndarray:
        if self._lr is None:
            raise UsageError(f"the strategy has no {self._option}: give it, or call defaults(train)")
        moved: np.ndarray = params + self._lr * delta
        return moved
