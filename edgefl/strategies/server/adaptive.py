"""Adaptive: FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, arXiv:2003.00295, Algorithm 2).

    m ← β₁ m + (1 − β₁) Δ
    v ← v + Δ²                            adagrad
    v ← β₂ v + (1 − β₂) Δ²                adam
    v ← v − (1 − β₂) Δ² sign(v − Δ²)      yogi
    w ← w + η_s m / (√v + τ)              m = 0 and v = τ² before the first round

The paper has no correction of the bias towards these first values, so neither is there one here. Running statistics
have no gradient: they move by Δ itself.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from ...errors import UsageError
from ..base import Site, State, below_one, rate, take
from . import ServerOptimizer

Rule = Literal["adagrad", "adam", "yogi"]


class Adaptive(ServerOptimizer):
    """State: `first` and `second`, m and v, (P_trained,) float32 each."""

    carries = True

    def __init__(self, rule: Rule, lr: float, *, beta1: float, beta2: float = 0.0, tau: float) -> None:
        assert rule in get_args(Rule)
        self._rule, self._lr, self._tau = rule, rate("server_lr", lr), rate("tau", tau)
        if not self._tau**2 > 0:
            raise UsageError(f"tau is {tau!r}: give a number above 1e-20")
        self._beta1, self._beta2 = below_one("beta1", beta1), below_one("beta2", beta2)
        self._trained: int | None = None
        self._first: np.ndarray | None = None
        self._second: np.ndarray | None = None

    def prepare(self, site: Site) -> None:
        self._trained = site.num_trained

    def step(self, params: np.ndarray, delta: np.ndarray) -> np.ndarray:
        trained = len(params) if self._trained is None else self._trained
        own = delta[:trained]
        first = np.zeros_like(own) if self._first is None else self._first
        second = np.full_like(own, self._tau**2) if self._second is None else self._second
        self._first = self._beta1 * first + (1 - self._beta1) * own
        self._second = self._squares(second, own * own)
        moved: np.ndarray = params + delta
        moved[:trained] = params[:trained] + self._lr * (self._first / (np.sqrt(self._second) + self._tau))
        return moved

    def _squares(self, second: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """v of this round, from that of the round before and Δ²."""
        if self._rule == "adagrad":
            new = second + squares
        elif self._rule == "adam":
            new = self._beta2 * second + (1 - self._beta2) * squares
        else:
            new = second - (1 - self._beta2) * squares * np.sign(second - squares)
        return np.asarray(new)

    def state(self) -> State:
        return {} if self._first is None or self._second is None else {"first": self._first, "second": self._second}

    def restore(self, state: State) -> None:
        size = len(state["first"]) if self._trained is None and "first" in state else self._trained or 0
        self._first, self._second = take(state, first=size, second=size)
