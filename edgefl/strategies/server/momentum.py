"""Momentum: v ← β v + Δ, w ← w + η_s v (FedAvgM: Hsu et al. 2019, arXiv:1909.06335, whose Δ has the other sign).

Running statistics have no velocity: with one, a variance could overshoot below zero. They move by η_s Δ.
"""

from __future__ import annotations

import numpy as np

from ..base import Site, State, below_one, rate, take
from . import ServerOptimizer


class Momentum(ServerOptimizer):
    """State: `velocity`, (P_trained,) float32."""

    def __init__(self, lr: float, momentum: float) -> None:
        self._lr, self._momentum = rate("server_lr", lr), below_one("momentum", momentum)
        self.carries = bool(self._momentum > 0)
        self._trained: int | None = None
        self._velocity: np.ndarray | None = None

    def prepare(self, site: Site) -> None:
        self._trained = site.num_trained

    def step(self, params: np.ndarray, delta: np.ndarray) -> np.ndarray:
        trained = len(params) if self._trained is None else self._trained
        move = delta.copy()
        if self._velocity is not None:
            move[:trained] += self._momentum * self._velocity
        self._velocity = move[:trained].copy()
        moved: np.ndarray = params + self._lr * move
        return moved

    def state(self) -> State:
        return {} if self._velocity is None else {"velocity": self._velocity}

    def restore(self, state: State) -> None:
        size = len(state["velocity"]) if self._trained is None and "velocity" in state else self._trained or 0
        (self._velocity,) = take(state, velocity=size)
