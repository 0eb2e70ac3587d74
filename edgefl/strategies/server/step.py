"""Step: w ← w + η_s · Δ, plain SGD of the server (η_s as in Reddi et al. 2021, arXiv:2003.00295)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import UsageError
from ..base import Training, rate
from . import ServerOptimizer


class Step(ServerOptimizer):
    """`lr` None: the devices' learning rate in each round. `option` is what the preset calls it."""

    def __init__(self, lr: float | None, option: str = "server_lr") -> None:
        self._option = option
        self._train: Training | None = None
        self._given = self._lr = None if lr is None else rate(option, lr)

    def defaults(self, train: Training) -> Mapping[str, Any]:
        if self._given is None:  # anew in each run of an object
            self._lr, self._train = rate(self._option, train.lr), train
        return {}

    def begin(self, round: int, params: np.ndarray) -> None:
        if self._train is not None:
            self._lr = rate(self._option, self._train.lr_in(round))

    def step(self, params: np.ndarray, delta: np.ndarray) -> np.ndarray:
        if self._lr is None:
            raise UsageError(f"the strategy has no {self._option}: give it, or call defaults(train)")
        moved: np.ndarray = params + self._lr * delta
        return moved
