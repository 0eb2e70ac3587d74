"""Our own strategies, and the parts that none of them uses yet, keep the laws of edgefl.testing."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import strategies
from edgefl.strategies.combine.spilled import Spilled
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.momentum import Momentum
from edgefl.testing import check_strategy

OPTIONS = {"fedavg": {"server_lr": 0.5}, "fedavgm": {"server_lr": 0.5, "momentum": 0.3}, "fedsgd": {"lr": 0.2}}


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_our_strategies_keep_the_laws(name: str) -> None:
    check_strategy(lambda: strategies.get(name))
    check_strategy(lambda: strategies.get(name, **OPTIONS[name]))


class WeightedMean(Spilled):
    """In float64, over the updates in their order: as exact as it needs to be to show the spill's order."""

    def rule(self, deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return (weights @ deltas.astype(np.float64) / weights.sum()).astype(np.float32)


def test_rules_on_the_spill_keep_them_too() -> None:
    check_strategy(lambda: Composed("spilled", combine=WeightedMean(), server=Momentum(1.0, 0.5)))
