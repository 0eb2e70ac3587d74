"""Our own strategies, and the parts that none of them uses yet, keep the laws of edgefl.testing."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import strategies
from edgefl.strategies.combine.spilled import Spilled
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.momentum import Momentum
from edgefl.testing import check_strategy

OPTIONS = {
    "scaffold": {"server_lr": 0.5},
    "feddyn": {"alpha": 0.5},
    "fedcm": {"alpha": 1.0, "server_lr": 0.5},
    "mime-lite": {"beta": 0.0, "server_lr": 0.5},
    "mifa": {"server_lr": 0.5},
    "fedavg": {"server_lr": 0.5},
    "fedavgm": {"server_lr": 0.5, "momentum": 0.3},
    "fedsgd": {"lr": 0.2},
    "fedadagrad": {"server_lr": 0.1, "tau": 0.01, "beta1": 0.5},
    "fedadam": {"server_lr": 0.1, "tau": 0.01, "beta1": 0.0, "beta2": 0.5},
    "fedyogi": {"server_lr": 0.1, "tau": 0.01, "beta1": 0.5, "beta2": 0.9},
    "fednova": {"server_lr": 0.5},
    "qfedavg": {"q": 3},
    **{name: {"server_lr": 0.5} for name in ("apfl", "ditto", "fedbn", "fedper", "fedrep", "finetune")},
    "fedasync": {"alpha": 1, "damping": "hinge", "a": 2, "b": 0},
}

NEEDED = {"monna": {"trusted": "b"}}
ROBUST = {"f": 1, "before": "clip+nnm", "server_lr": 0.5}  # OPTIONS of the rules that see every update


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_our_strategies_keep_the_laws(name: str) -> None:
    needed = NEEDED.get(name, {})
    check_strategy(lambda: strategies.get(name, **needed))
    check_strategy(lambda: strategies.get(name, **needed, **OPTIONS.get(name, ROBUST)))


class WeightedMean(Spilled):
    """In float64, over the updates in their order: as exact as it needs to be to show the spill's order."""

    def rule(self, deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return (weights @ deltas.astype(np.float64) / weights.sum()).astype(np.float32)


def test_rules_on_the_spill_keep_them_too() -> None:
    check_strategy(lambda: Composed("spilled", combine=WeightedMean(), server=Momentum(1.0, 0.5)))
