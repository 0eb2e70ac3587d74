"""Strategies in float64, written from their papers as plainly as possible. For tests: the product has its own.

A report is what one device sends: its delta (local − global, where most papers have the other sign), n_k, its number of
steps, its loss and its staleness. A reference maps the params and the reports of one round to the next params.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Report:
    delta: np.ndarray
    n: int
    steps: int
    loss: float
    staleness: int = 0


Reference = Callable[[np.ndarray, list[Report]], np.ndarray]


def mean(reports: list[Report]) -> np.ndarray:
    """Σ n_k Δ_k / Σ n_k."""
    return sum(r.n * r.delta for r in reports) / sum(r.n for r in reports)


def fedavg(server_lr: float = 1.0) -> Reference:
    return lambda w, reports: w + server_lr * mean(reports)


def fedavgm(server_lr: float = 1.0, momentum: float = 0.9) -> Reference:
    """Hsu et al. 2019: v ← β v + Δ, w ← w + η v."""
    velocity = 0.0

    def step(w: np.ndarray, reports: list[Report]) -> np.ndarray:
        nonlocal velocity
        velocity = momentum * velocity + mean(reports)
        return w + server_lr * velocity

    return step


def adaptive(rule: str, server_lr: float, tau: float, beta1: float, beta2: float = 0.0) -> Reference:
    """Reddi et al. 2021, Algorithm 2, with v before the first round = τ²."""
    m, v = 0.0, tau**2

    def step(w: np.ndarray, reports: list[Report]) -> np.ndarray:
        nonlocal m, v
        delta = mean(reports)
        m = beta1 * m + (1 - beta1) * delta
        if rule == "adagrad":
            v = v + delta**2
        elif rule == "yogi":
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        return w + server_lr * m / (np.sqrt(v) + tau)

    return step


def weights_of_gradients(
    steps: int, lr: float, momentum: float = 0.0, pull: float = 0.0, nesterov: bool = False
) -> np.ndarray:
    """FedNova's a: the weight of each gradient in the delta −lr Σ a_i g_i, found by one gradient at a time."""
    a = np.empty(steps)
    for one in range(steps):
        w = v = 0.0  # the distance from the start, and the velocity
        for step in range(steps):
            g = float(step == one) + pull * w
            v = momentum * v + g
            w -= lr * (g + momentum * v if nesterov else v)
        a[one] = -w / lr
    return a


def fednova(server_lr: float = 1.0, size: Callable[[int], float] = float) -> Reference:
    """Wang et al. 2020, equations 5 and 6: `size` gives ‖a‖₁ for a number of steps."""

    def step(w: np.ndarray, reports: list[Report]) -> np.ndarray:
        n = sum(r.n for r in reports)
        effective = sum(r.n / n * size(r.steps) for r in reports)
        return w + server_lr * effective * sum(r.n / n * r.delta / size(r.steps) for r in reports)

    return step


def qfedavg(q: float, lr: float) -> Reference:
    """Li et al. 2020, Algorithm 2, with devices drawn alike and weighed by n_k."""

    def step(w: np.ndarray, reports: list[Report]) -> np.ndarray:
        above, below = np.zeros_like(w), 0.0
        for r in reports:
            delta_w = -r.delta / lr  # L (w − w̄)
            above += r.n * r.loss**q * delta_w
            below += r.n * (q * r.loss ** (q - 1) * np.sum(delta_w**2) + r.loss**q / lr)
        return w - above / below

    return step


def fedasync(alpha: float, damp: Callable[[int], float]) -> Reference:
    """Xie et al. 2019, Algorithm 1; of several updates in one round, the mean of what each would do."""
    history: list[np.ndarray] = []

    def step(w: np.ndarray, reports: list[Report]) -> np.ndarray:
        history.append(w)
        moves = []
        for r in reports:
            local = history[-1 - r.staleness] + r.delta
            mixed = alpha * damp(r.staleness)
            moves.append((1 - mixed) * w + mixed * local - w)
        return w + np.mean(moves, axis=0)

    return step
