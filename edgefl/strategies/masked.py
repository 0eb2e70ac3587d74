"""Masked: a strategy over the params that devices share, in a model that has personal ones beside them.

The strategy inside sees vectors (S,) only, and so do its state and its spill; the model keeps its P coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.mask import Mask
from ..errors import UsageError
from .base import Site, State, Strategy, Training, Update


class Masked(Strategy):
    """`strategy` over the shared coordinates of `mask`."""

    def __init__(self, strategy: Strategy, mask: Mask) -> None:
        if strategy.sides or strategy.sent_sides:
            raise UsageError(
                f"strategy {strategy.name!r} has side vectors, which are of the whole model: leave personal.keep out"
            )
        self._strategy, self._mask = strategy, mask
        self.name, self.options, self.personal = strategy.name, strategy.options, strategy.personal
        self.fit, self.local, self.grain = strategy.fit, strategy.local, strategy.grain
        self.carries, self.by_step = strategy.carries, strategy.by_step
        self._params: np.ndarray | None = None

    def weigh(self, num_examples: int) -> int:
        return self._strategy.weigh(num_examples)

    def reach(self, num_examples: int) -> float:
        return self._strategy.reach(num_examples)

    def defaults(self, train: Training) -> Mapping[str, Any]:
        return self._strategy.defaults(train)

    def prepare(self, site: Site) -> None:
        self._strategy.prepare(site_of(self._mask, site))

    def state(self) -> State:
        return self._strategy.state()

    def restore(self, state: State) -> None:
        self._strategy.restore(state)

    def start(self, params: np.ndarray, round: int) -> None:
        self._params = params
        self._strategy.start(self._mask.shared(params), round)

    def add(self, update: Update) -> None:
        """Count one update, whose delta is (S,)."""
        self._strategy.add(update)

    def finish(self) -> np.ndarray:
        assert self._params is not None
        return self._mask.with_shared(self._params, self._strategy.finish())


def site_of(mask: Mask, site: Site) -> Site:
    """`site` as a strategy over the shared coordinates has it."""
    return replace(site, num_params=mask.num_shared, num_trained=mask.num_trained)


def over(mask: Mask, strategy: Strategy) -> Strategy:
    """`strategy` for models with this mask: itself where all is shared."""
    return strategy if mask.shares_all else Masked(strategy, mask)
