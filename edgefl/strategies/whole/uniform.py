"""Uniform: the base of whole strategies: every device's delta counts once, whatever its number of examples.

The papers' means are over devices, and so is what devices and aggregator keep. Where admission has bounded an update's
influence, its delta moves the model by the share that is left; what is kept of it is not bounded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import CodecError, UsageError
from ..base import Site, State, Strategy, Training, Update, rate, take
from ..combine.real_sum import RealSum, check
from ..local_steps import steps_of
from ..weights import UNIT


class Uniform(Strategy):
    """A subclass has `conclude`, and one vector that outlives rounds, whose name in the state is `keeps`."""

    keeps: str
    carries = True

    def __init__(self, name: str, server_lr: float) -> None:
        self.name = name
        self._lr = rate("server_lr", server_lr)
        self._train: Training | None = None
        self._site: Site | None = None
        self.kept = np.empty(0, np.float32)  # (P,), never changed in place

    def defaults(self, train: Training) -> Mapping[str, Any]:
        self._train = train
        return {}

    def prepare(self, site: Site) -> None:
        self._site = site
        self.kept = np.zeros(site.num_params, np.float32)

    def weigh(self, num_examples: int) -> int:
        """Every device counts alike, so influence is bounded by the length of the delta."""
        return UNIT

    @property
    def train(self) -> Training:
        if self._train is None:
            raise UsageError(f"{self.name} needs the devices' training settings: call defaults(train)")
        return self._train

    def start(self, params: np.ndarray, round: int) -> None:
        if self._site is None:
            self.prepare(Site(len(params), len(params)))
        self._params, self._round = params, round
        self._sum, self._moved = RealSum(len(params)), RealSum(len(params))
        self._count = 0

    def add(self, update: Update) -> None:
        """Count one update. Its steps must be those that its examples and the settings make."""
        check(update)
        expected = steps_of(self.train, update.examples)
        if update.steps != expected:
            raise CodecError(
                f"update of {update.steps} steps, where {update.examples} examples make {expected}: rejected", "steps"
            )
        delta, told = self.parts(update)
        with self._sum.admit(told, self.scale(update)), self._moved.admit(delta, self.share(update)):
            self._count += 1

    def parts(self, update: Update) -> tuple[np.ndarray, np.ndarray]:
        """The delta, and what goes into the sum that `conclude` gets; both (P,)."""
        delta = update.delta(len(self._params))
        return delta, delta

    def share(self, update: Update) -> float:
        """What is left of the update where its influence has been bounded, or it is late."""
        return update.weight / update.examples if update.allowed is None else update.allowed / UNIT

    def scale(self, update: Update) -> float:
        """What the second of `parts` counts in the sum that `conclude` gets."""
        return 1.0

    def finish(self) -> np.ndarray:
        mean = self._moved.total() / self._count
        moved = self._params + self._lr * self.conclude(mean, self._sum.total(), self._count)
        params: np.ndarray = moved.astype(np.float32)
        return params

    @abstractmethod
    def conclude(self, mean: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        """How far the model moves, (P,) float64, from the mean of the deltas and the sum of `scale` times the second
        part of each, of `count` devices. Changes what the strategy keeps."""

    def trained(self, vector: np.ndarray) -> np.ndarray:
        """(P,) float32, with zeros for what is not trained."""
        assert self._site is not None
        out = vector.astype(np.float32)
        out[self._site.num_trained :] = 0
        return out

    @property
    def devices(self) -> int:
        """N, or the number of a round's devices if that is larger."""
        assert self._site is not None
        return max(self._site.devices, self._count)

    def state(self) -> State:
        return {self.keeps: self.kept} if self.kept.any() else {}

    def restore(self, state: State) -> None:
        size = len(self.kept) if self._site else len(state.get(self.keeps, ()))
        (found,) = take(state, **{self.keeps: size})
        self.kept = np.zeros(size, np.float32) if found is None else found
