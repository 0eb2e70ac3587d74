"""Local steps: how many steps a device takes in a round, and how far they carry it.

Not here: what a strategy makes of them (combine/normalized.py).
"""

from __future__ import annotations

from typing import NamedTuple

from .base import Pulled, Training

Row = tuple[float, float, float]
Matrix = tuple[Row, Row, Row]


def batches_of(train: Training, num_examples: int) -> int:
    """⌈n_k / B⌉: the batches of an epoch."""
    return 1 if train.batch_size == "all" else -(-num_examples // train.batch_size)


def steps_of(train: Training, num_examples: int) -> int:
    """K_k: the steps that a device with so many examples takes, min(max_steps, E ⌈n_k / B⌉)."""
    steps = train.epochs * batches_of(train, num_examples)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def momentum_gain(train: Training, lr: float, steps: int) -> float:
    """The gain of momentum alone: with it, −delta / (lr · gain) is a mean of all that the steps added up, weight decay
    and corrections too."""
    return gain(_Momentum(train.optimizer, train.momentum), lr, steps)


class _Momentum(NamedTuple):
    optimizer: str
    momentum: float
    weight_decay: float = 0.0
    prox_mu: float = 0.0


def gain(train: Pulled, lr: float, steps: int) -> float:
    """‖a‖₁: the weights with which the gradients of so many steps of SGD enter the delta, −lr Σ a_i g_i, added up.

    It is how far the steps carry a param, in units of lr, if the gradient is 1 throughout. Without momentum, proximal
    term and weight decay it is the number of steps. With them, a step is an affine map of displacement d and velocity
    v, as the core takes it (`Trainer.fit`):

        g = 1 − c d        v ← m v + g        d ← d + lr v, or d + lr (g + m v) for Nesterov's       c: prox + decay
    """
    pull, momentum = train.prox_mu + train.weight_decay, train.momentum
    if not pull and not momentum:
        return float(steps)
    velocity: Row = (-pull, momentum, 1.0)  # of d, v and 1
    d, v, one = velocity
    if train.optimizer == "nesterov":
        d, v, one = -pull + momentum * d, momentum * v, 1.0 + momentum * one
    displacement: Row = (1.0 + lr * d, lr * v, lr * one)
    total = _power((displacement, velocity, (0.0, 0.0, 1.0)), steps)
    return total[0][2] / lr


def _power(matrix: Matrix, exponent: int) -> Matrix:
    """By squaring, in Python's floats: the same bits on any machine."""
    out: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    while exponent:
        if exponent & 1:
            out = _product(out, matrix)
        matrix, exponent = _product(matrix, matrix), exponent >> 1
    return out


def _product(a: Matrix, b: Matrix) -> Matrix:
    def times(row: Row) -> Row:
        first, second, third = (row[0] * b[0][i] + row[1] * b[1][i] + row[2] * b[2][i] for i in range(3))
        return first, second, third

    return times(a[0]), times(a[1]), times(a[2])
