"""Normalized: FedNova's average (Wang et al. 2020, arXiv:2007.07481, equations 5 and 6).

    Δ = (Σ_k p_k ‖a_k‖₁) · Σ_k p_k Δ_k / ‖a_k‖₁        p_k = n_k / Σ n_k

‖a_k‖₁ is the number of steps K_k for plain SGD, and what `gain` says with momentum, a proximal term or weight decay. A
plain average minimizes another objective than Σ p_k F_k: one in which a device counts by p_k K_k. This one does not.

Devices may lie about n_k, and ‖a_k‖₁ follows from it. A delta of few steps is divided by little: the bound on influence
is on n_k ‖Δ_k‖ / ‖a_k‖₁ (`reach`). The sum in front lengthens the step of all by the steps of one. Where influence is
bounded, a device therefore has no more steps in it than the examples make that it counts with, and no more than `TIMES`
the median.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median_low
from typing import Any

import numpy as np

from ...errors import CodecError, UsageError
from ..base import Training, Update
from ..fit import Fit
from ..local_steps import gain, steps_of
from ..usual import TIMES
from . import Combine
from .real_sum import RealSum, check

NO_TRAIN = "FedNova needs the devices' training settings: call defaults(train)"
LEAST = 0.05  # of what a device's steps add up to, where one alone is 1
MANY = 100  # steps: they come back to the round's model within so many, or not at all
FINE = 2**20  # gains are added up in whole numbers of this fraction


class Normalized(Combine):
    """The steps of an update must be those that its examples and the training settings make: a device that told of
    fewer steps would count for more."""

    by_step = True
    fit = Fit(without={"adam": "a step of Adam has no fixed gain to normalize by"})

    def __init__(self) -> None:
        self._train: Training | None = None
        self._lr = 0.0

    def defaults(self, train: Training) -> Mapping[str, Any]:
        """UsageError where some numbers of steps add up to next to nothing, which no delta can be divided by."""
        self._train = train
        pull = train.prox_mu + train.weight_decay
        if pull and not all(gain(train, train.lr, steps) >= LEAST for steps in range(1, MANY)):
            raise UsageError(
                f"FedNova divides a delta by what its steps add up to, and with lr {train.lr:g}, momentum "
                f"{train.momentum:g} and a pull of {pull:g} (prox_mu and weight_decay) they carry a device back to the "
                "round's model: lower lr, prox_mu or momentum"
            )
        return {}

    def begin(self, round: int, params: np.ndarray) -> None:
        if self._train is None:
            raise UsageError(NO_TRAIN)
        self._lr = self._train.lr_in(round)

    def reach(self, num_examples: int) -> float:
        return 1 / self._size(num_examples)

    def start(self, num_params: int) -> None:
        self._num_params = num_params
        self._sum, self._bounded = RealSum(num_params), False
        self._sizes: list[tuple[int, int]] = []  # by update: n_k and ‖a_k‖₁, in units of 1 / FINE

    def add(self, update: Update) -> None:
        assert self._train is not None
        check(update)
        expected = steps_of(self._train, update.examples)
        if update.steps != expected:
            raise CodecError(
                f"update of {update.steps} steps, where {update.examples} examples make {expected}: rejected", "steps"
            )
        size = gain(self._train, self._lr, update.steps)
        self._sum.add(update.delta(self._num_params), update.weight / size)
        if update.allowed is not None:
            self._bounded = True
            size = self._size(min(update.examples, update.allowed), self._lr)
        self._sizes.append((update.num_examples, round(size * FINE)))

    def finish(self) -> np.ndarray:
        examples = sum(n for n, _ in self._sizes)
        most = TIMES * median_low(size for _, size in self._sizes) if self._bounded else None
        gains = sum(n * (size if most is None else min(size, most)) for n, size in self._sizes)
        return (self._sum.total() * (gains / FINE / examples**2)).astype(np.float32)

    def _size(self, num_examples: int, lr: float | None = None) -> float:
        """‖a_k‖₁ of a device with so many examples; at the learning rate of the first round if none is given."""
        if self._train is None:
            raise UsageError(NO_TRAIN)
        return gain(self._train, self._train.lr if lr is None else lr, steps_of(self._train, num_examples))
