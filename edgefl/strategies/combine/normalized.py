"""Normalized: FedNova's average (Wang et al. 2020, arXiv:2007.07481, equations 5 and 6).

    Δ = (Σ_k p_k ‖a_k‖₁) · Σ_k p_k Δ_k / ‖a_k‖₁        p_k = n_k / Σ n_k

‖a_k‖₁ is the number of steps K_k for plain SGD, and what `gain` says with momentum, a proximal term or weight decay. A
plain average minimizes another objective than Σ p_k F_k: one in which a device counts by p_k K_k. This one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import CodecError, UsageError
from ..base import Training, Update
from ..fit import Fit
from ..local_steps import gain, steps_of
from . import Combine
from .real_sum import RealSum, check

FINE = 2**20  # gains are added up in whole numbers of this fraction


class Normalized(Combine):
    """The steps of an update must be those that its examples and the training settings make: a device that told of
    fewer steps would count for more."""

    fit = Fit(without={"adam": "a step of Adam has no fixed gain to normalize by"})

    def __init__(self) -> None:
        self._train: Training | None = None
        self._lr = 0.0

    def defaults(self, train: Training) -> Mapping[str, Any]:
        self._train = train
        return {}

    def begin(self, round: int, params: np.ndarray) -> None:
        if self._train is None:
            raise UsageError("FedNova needs the devices' training settings: call defaults(train)")
        self._lr = self._train.lr_in(round)

    def start(self, num_params: int) -> None:
        self._num_params = num_params
        self._sum, self._examples, self._gains = RealSum(num_params), 0, 0

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
        self._examples += update.num_examples
        self._gains += update.num_examples * round(size * FINE)

    def finish(self) -> np.ndarray:
        return (self._sum.total() * (self._gains / FINE / self._examples**2)).astype(np.float32)
