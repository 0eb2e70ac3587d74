"""Fair: q-FedAvg's step (Li et al. 2020, arXiv:1905.10497, Algorithm 2), which favours devices with a high loss.

    Δ = Σ_k n_k F_k^q Δ_k / Σ_k n_k (F_k^q + q L F_k^(q−1) ‖Δ_k‖²)        L = 1 / lr of the devices

It goes down Σ_k n_k F_k^(q+1) / (q + 1): the larger q is, the more alike are the devices' losses in the end. With q = 0
it is FedAvg. The paper draws devices by n_k and weighs them alike; here devices are drawn alike and weigh n_k.

F_k is the loss of the round's model on the examples that the device holds out (`evaluate.holdout`). If it holds none
out, F_k is the training loss of its last epoch, which is lower. It is the device's own word, so it is believed
within ten times the median loss of the last committed round either way (usual.py): a huge one would make the model the
device's own, and below q = 1 a tiny one would hold it where it is. In the first round it is believed as admission
says.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from statistics import median_low
from typing import Any

import numpy as np

from ... import _core
from ...errors import CodecError, UsageError
from ..base import State, Training, Update, take_number
from ..usual import believed
from . import Combine
from .real_sum import LEAST as LIGHTEST
from .real_sum import MOST as HEAVIEST
from .real_sum import RealSum, check

LEAST = 1e-10  # of a loss: 0 to a negative power is not a number
MOST = 1e6
FINE = 200  # bits after the binary point of what is divided by: whole numbers, whose order makes no difference


class Fair(Combine):
    """State: `loss`, (1,) float64, the median loss of the last committed round."""

    def __init__(self, q: float) -> None:
        if not isinstance(q, int | float) or isinstance(q, bool) or not 0 <= q <= 16:
            raise UsageError(f"q is {q!r}: give a number from 0 to 16")
        self._q = float(q)
        self._train: Training | None = None
        self._inverse = 0.0
        self._median: float | None = None

    def defaults(self, train: Training) -> Mapping[str, Any]:
        self._train = train
        return {}

    def begin(self, round: int, params: np.ndarray) -> None:
        if self._train is None:
            raise UsageError("q-FedAvg needs the devices' learning rate: call defaults(train)")
        self._inverse = 1 / self._train.lr_in(round)

    def start(self, num_params: int) -> None:
        self._num_params = num_params
        self._sum, self._below, self._losses = RealSum(num_params), 0, array("d")

    def add(self, update: Update) -> None:
        check(update)
        told = update.told_loss
        if told is None or not math.isfinite(told):
            raise CodecError("update without a loss, which q-FedAvg weighs it by: rejected", "finite")
        delta, loss = update.delta(self._num_params), self._believed(told)
        squares = _core.rms(delta) ** 2 * len(delta)
        if not math.isfinite(squares):
            raise CodecError("update with NaN or infinity: its training diverged, lower the learning rate", "finite")
        factor = self._factor(loss, update.num_examples)
        self._sum.add(delta, update.weight * factor)
        curvature = self._q * self._inverse * factor / loss * squares
        self._below += update.num_examples * _whole(factor + curvature)
        self._losses.append(told)

    def _factor(self, loss: float, num_examples: int) -> float:
        """F^q in units of the last committed round's median loss, which cancel out of Δ; within what the sum of the
        deltas can weigh, so that the sum which it is divided by has the same weights."""
        factor: float = (loss / (self._median or 1.0)) ** self._q
        return min(HEAVIEST / num_examples, max(LIGHTEST, factor))

    def _believed(self, loss: float) -> float:
        return max(LEAST, min(loss if self._median is None else believed(loss, self._median), MOST))

    def finish(self) -> np.ndarray:
        self._median = max(LEAST, min(median_low(self._losses), MOST))
        mean: np.ndarray = self._sum.total() / (self._below / 2**FINE)
        return mean.astype(np.float32)

    def state(self) -> State:
        return {} if self._median is None else {"loss": np.array([self._median])}

    def restore(self, state: State) -> None:
        self._median = take_number(state, "loss")


def _whole(value: float) -> int:
    return int(math.ldexp(value, FINE))
