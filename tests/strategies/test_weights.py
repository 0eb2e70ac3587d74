"""What an update counts: by its examples, alike, or by its examples up to a cap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strategy_rounds import make, run, update

from edgefl import simulate
from edgefl.data import Dataset
from edgefl.errors import UsageError
from edgefl.federation import Objects, make_strategy
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.settings import Settings
from edgefl.strategies import STRATEGIES, Strategy
from edgefl.strategies.weights import EXAMPLES, UNIT, Weights
from edgefl.testing import check_strategy

RAW32 = {"codec.name": "raw32", "downlink.name": "raw32", "downlink.span": 1}


@pytest.mark.parametrize(("weights", "mean"), [("examples", 90.1), ("uniform", 50.5), ("capped:300", 75.25)])
def test_the_mean_of_a_small_and_a_large_device(weights: str, mean: float) -> None:
    settings = Settings().replace(**{**RAW32, "strategy.weights": weights})
    strategy = make_strategy(settings)
    result = run(strategy, [0], update([1], 100), update([100], 900, device="b"))
    assert result[0] == pytest.approx(mean, rel=1e-6)


def test_a_late_update_counts_by_its_share_of_whatever_weight_it_has() -> None:
    strategy = make("fedavg")
    strategy.weights = Weights.of("uniform")
    late = replace(update([4], 7, device="b"), staleness=3)
    assert run(strategy, [0], update([2], 9000), late).tolist() == [(2 + 4 / 2) / 2]


def test_an_object_that_is_used_again_has_the_weights_of_its_settings() -> None:
    strategy = make("fedavg")
    for weights in ("uniform", "examples"):
        make_strategy(Settings().replace(**{**RAW32, "strategy.weights": weights}), Objects(strategy=strategy))
        assert strategy.weights == Weights.of(weights)


@pytest.mark.parametrize("weights", ["uniform", "capped:20"])
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_strategies_keep_their_laws_with_any_weights(name: str, weights: str) -> None:
    def made() -> Strategy:
        strategy = make(name)
        strategy.weights = Weights.of(weights)
        return strategy

    if "weights" not in made().fit.without:
        check_strategy(made)


def test_weights_of_examples() -> None:
    assert Weights.of("examples") == EXAMPLES
    assert [Weights.of("uniform").weigh(n) for n in (1, 2**24)] == [UNIT, UNIT]
    assert [Weights.of("capped:500").weigh(n) for n in (1, 500, 2**24)] == [1, 500, 500]


@pytest.mark.parametrize("bad", ["", "equal", "capped", "capped:0", "capped:-1", "capped:1.5", "capped:9999999999"])
def test_other_weights_are_refused(bad: str) -> None:
    with pytest.raises(UsageError, match=r"strategy\.weights"):
        make_strategy(Settings().replace(**{**RAW32, "strategy.weights": bad}))


def test_uniform_weights_serve_the_devices_with_few_examples() -> None:
    """Nine devices with few examples of one kind and one with many of another: alike, the nine set the model."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(10), [300] + [20] * 9)
    x = rng.normal(size=(len(owner), 1)).astype(np.float32)
    y = np.where(owner == 0, 3, 1) * x[:, 0]
    slopes = {}
    for weights in ("examples", "uniform", "capped:20"):
        history = simulate(
            load(zoo.mlp([1, 1])), Dataset(x, y, device_train=owner), devices=10, rounds=12, partition="natural",
            batch_size="all", lr=0.3, epochs=1, codec="raw32", downlink="raw32", **{"strategy.weights": weights},
        )  # fmt: skip
        slopes[weights] = float(history.params[0])
    assert slopes["examples"] == pytest.approx((300 * 3 + 180) / 480, abs=0.1)
    assert slopes["uniform"] == pytest.approx(1.2, abs=0.1) == slopes["capped:20"]
