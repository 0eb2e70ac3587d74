"""SCAFFOLD, FedDyn, FedCM, Mime-lite and MIFA in float64, written from their papers over quadratics. For tests only.

Each maps the params and the devices of a round to the next params, and keeps the papers' vectors of every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from quadratic_fleet import TRAINED, P, Quadratic, descend
from strategy_references import weights_of_gradients

Round = Callable[[np.ndarray, Sequence[int]], np.ndarray]
Steps = Callable[[Quadratic], int]


def _only_trained(vector: np.ndarray) -> np.ndarray:
    return np.where(np.arange(P) < TRAINED, vector, 0)


def scaffold(devices: list[Quadratic], steps: Steps, lr: float, server_lr: float, momentum: float) -> Round:
    """Karimireddy et al. 2020, Algorithm 1, option II; with momentum, K is the sum of the gradients' weights."""
    c, own = np.zeros(P), [np.zeros(P) for _ in devices]

    def step(w: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        nonlocal c
        deltas, changes = [], []
        for k in asked:
            delta = descend(devices[k], w, lambda y, g, k=k: g - own[k] + c, steps(devices[k]), lr, momentum)
            k_lr = lr * weights_of_gradients(steps(devices[k]), lr, momentum).sum()
            new = _only_trained(own[k] - c - delta / k_lr)
            deltas.append(delta)
            changes.append(new - own[k])
            own[k] = new
        c = c + sum(changes) / len(devices)
        return np.asarray(w + server_lr * sum(deltas) / len(asked))

    return step


def feddyn(devices: list[Quadratic], steps: Steps, lr: float, alpha: float) -> Round:
    """Acar et al. 2021, Algorithm 1, with the inner problem solved by so many gradient steps."""
    h, own = np.zeros(P), [np.zeros(P) for _ in devices]

    def step(w: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        nonlocal h
        deltas = []
        for k in asked:
            delta = descend(devices[k], w, lambda y, g, k=k: g - own[k] + alpha * (y - w), steps(devices[k]), lr)
            own[k] = _only_trained(own[k] - alpha * delta)
            deltas.append(delta)
        h = h - _only_trained(alpha / len(devices) * sum(deltas))
        return np.asarray(w + sum(deltas) / len(asked) - h / alpha)

    return step


def fedcm(devices: list[Quadratic], steps: Steps, lr: float, server_lr: float, alpha: float) -> Round:
    """Xu et al. 2021, Algorithm 2."""
    m = np.zeros(P)

    def step(w: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        nonlocal m
        deltas = [
            descend(devices[k], w, lambda y, g: alpha * g + (1 - alpha) * m, steps(devices[k]), lr) for k in asked
        ]
        each = [delta / (lr * steps(devices[k])) for k, delta in zip(asked, deltas, strict=True)]
        m = _only_trained(-sum(each) / len(asked))
        return np.asarray(w + server_lr * sum(deltas) / len(asked))

    return step


def mime_lite(
    devices: list[Quadratic], steps: Steps, lr: float, server_lr: float, beta: float, *, decay: float = 0.0,
    mu: float = 0.0,
) -> Round:  # fmt: skip
    """Karimireddy et al. 2021, Algorithm 1, MimeLite with SGDm, of losses with weight decay and a pull."""
    m = np.zeros(P)

    def step(w: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        nonlocal m

        def move(y: np.ndarray, g: np.ndarray) -> np.ndarray:
            return np.asarray((1 - beta) * (g + decay * y + mu * (y - w)) + beta * m)

        deltas = [descend(devices[k], w, move, steps(devices[k]), lr) for k in asked]
        gradients = [devices[k].gradient(w.astype(np.float64)) + decay * w for k in asked]
        m = beta * m + (1 - beta) * _only_trained(sum(gradients) / len(asked))
        return np.asarray(w + server_lr * sum(deltas) / len(asked))

    return step


def mifa(devices: list[Quadratic], steps: Steps, lr: float, server_lr: float) -> Round:
    """Gu et al. 2021, Algorithm 1, where the first round hears every device."""
    last = [np.zeros(P) for _ in devices]

    def step(w: np.ndarray, asked: Sequence[int]) -> np.ndarray:
        for k in asked:
            last[k] = descend(devices[k], w, lambda y, g: g, steps(devices[k]), lr)
        return np.asarray(w + server_lr * sum(last) / len(devices))

    return step
