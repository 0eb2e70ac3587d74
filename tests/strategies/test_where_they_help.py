"""Each strategy on a small task of the kind that it was made for; both sides with their own best rate of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from edgefl import History, Model, simulate
from edgefl.data import Dataset
from edgefl.data import load as load_data
from edgefl.onnx import papers, zoo
from edgefl.onnx.load import load
from edgefl.onnx.templates import Net

LOSSLESS = {"codec": "raw32", "downlink": "raw32"}


def best(score: Callable[..., float], grid: Iterable[float], **options: object) -> float:
    return min(score(lr=lr, **options) for lr in grid)


def test_fednova_settles_at_the_pooled_optimum_where_fedavg_does_not() -> None:
    """One device with 400 examples takes twenty times the steps of the other twelve, whose data say something else."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(13), [400] + [20] * 12)
    x = rng.normal(size=(len(owner), 4)).astype(np.float32)
    x[owner > 0] *= 0.5
    one, other = rng.normal(size=4), rng.normal(size=4)
    y = np.where(owner == 0, x @ one, x @ other) + 0.1 * rng.normal(size=len(owner))
    wide = np.c_[x, np.ones(len(x))]
    optimum = np.mean((wide @ np.linalg.lstsq(wide, y, rcond=None)[0] - y) ** 2)

    def excess(strategy: str, lr: float, codec: str) -> float:
        history = simulate(
            load(zoo.mlp([4, 1])), Dataset(x, y.astype(np.float32), device_train=owner), devices=13, rounds=60,
            partition="natural", epochs=2, strategy=strategy, lr=lr, codec=codec,
        )  # fmt: skip
        return float(np.mean((x @ history.params[:4] + history.params[4] - y) ** 2) - optimum)

    plain = best(excess, (0.001, 0.003, 0.01, 0.03, 0.1, 0.2), strategy="fedavg", codec="raw32")
    for codec in ("raw32", "ecq"):
        assert best(excess, (0.001, 0.003), strategy="fednova", codec=codec) < plain / 2


@pytest.mark.parametrize("codec", ["raw32", "ecq"])
def test_qfedavg_serves_devices_more_alike_the_larger_q_is(codec: str) -> None:
    """Six devices and two with the opposite slope: no line serves all. The worst loss falls, the mean loss rises."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(8), 20)
    x = rng.normal(size=(160, 1)).astype(np.float32)
    y = (np.where(owner < 6, 2.0, -1.0) * x[:, 0]).astype(np.float32)

    def losses(strategy: str) -> np.ndarray:
        history = simulate(
            load(zoo.mlp([1, 1])), Dataset(x, y, device_train=owner), devices=8, rounds=100, partition="natural",
            strategy=strategy, lr=0.05, batch_size="all", codec=codec,
        )  # fmt: skip
        slope, offset = history.params
        errors = (x[:, 0] * slope + offset - y) ** 2
        return np.array([errors[owner == device].mean() for device in range(8)])

    plain, q1, q5 = (losses(strategy) for strategy in ("fedavg", "qfedavg:q=1", "qfedavg:q=5"))
    assert plain.max() > 1.3 * q1.max() > 1.4 * q5.max()
    assert plain.std() > 1.5 * q1.std() > 1.8 * q5.std()
    assert plain.mean() < q1.mean() < q5.mean()


def test_adaptive_servers_learn_rare_features_that_plain_averaging_leaves_behind() -> None:
    """Feature j of 200 is there in about 4 / j of the examples: most weights hardly ever have a gradient."""
    rng = np.random.default_rng(0)
    size, devices, features = 2000, 20, 200
    x = (rng.random((2 * size, features)) < np.minimum(0.5, 4 / np.arange(1, features + 1))).astype(np.float32)
    score = x @ rng.choice([-2, 2], size=features)
    y = (rng.random(2 * size) < 1 / (1 + np.exp(np.median(score) - score))).astype(np.int64)
    owner = np.repeat(np.arange(devices), size // devices)
    data = Dataset(x[:size], y[:size], x[size:], y[size:], device_train=owner)

    def loss(strategy: str, lr: float, codec: str = "raw32") -> float:
        history = simulate(
            load(zoo.mlp([features, 2])), data, devices=devices, rounds=25, partition="natural", fraction=0.5,
            strategy=strategy, lr=lr, codec=codec,
        )  # fmt: skip
        return float(np.mean([record.loss for record in history.rounds[-3:]]))

    plain = best(loss, (0.3, 1.0, 3.0), strategy="fedavg")
    for strategy, lr in (
        ("fedadam:server_lr=0.03", 0.3),
        ("fedyogi:server_lr=0.03", 0.3),
        ("fedadagrad:server_lr=0.3", 1.0),
    ):
        assert loss(strategy, lr) < 0.95 * plain, strategy
    assert loss("fedadam:server_lr=0.03", 0.3, codec="auto") < plain, "even compressed, against FedAvg in float32"


def test_fedasync_does_not_wait_for_slow_devices() -> None:
    """Three of ten devices take twenty times as long: virtual seconds to 85 %."""

    def seconds_to_85(**options: object) -> float:
        history = simulate(
            "mlp:64-32-10", "digits", devices=10, partition="dirichlet:0.3", epochs=2, faults="slow:0.3:20",
            target_accuracy=0.85, late_rounds=20, **options,
        )  # fmt: skip
        assert history.final.accuracy is not None and history.final.accuracy >= 0.85
        return history.final.seconds

    asynchronous = seconds_to_85(strategy="fedasync", mode="async", goal=1, min_reports=1, rounds=300)
    assert asynchronous < 0.6 * seconds_to_85(strategy="fedavg", rounds=20)


def test_fedadam_on_shakespeare_is_ahead_at_the_same_rate_of_the_devices(shared: Path) -> None:
    """A character LSTM on thirty roles. With its own best rate of the devices, FedAvg is as good: so it is in the
    paper's table."""
    file = shared / "data" / "shakespeare" / "roles.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no Shakespeare at {file}")
    data, model = load_data(f"shakespeare:{file}?window=20&roles=30"), small_lstm(20)

    def run(strategy: str) -> History:
        return simulate(
            model, data, devices=30, rounds=16, partition="natural", fraction=0.33, lr=0.3, strategy=strategy,
            **LOSSLESS,
        )  # fmt: skip

    plain, adam = (run(strategy).rounds[-1].accuracy for strategy in ("fedavg", "fedadam:server_lr=0.1"))
    assert adam > plain + 0.015


def small_lstm(steps: int, hidden: int = 48) -> Model:
    net = Net((steps,), True, 0)
    table = net.rng.normal(0, 1, (papers.CHARACTERS, 8)).astype(np.float32)
    net.look_up(net.store("embedding.weight", table)).add("Transpose", perm=[1, 0, 2])
    bound = 1 / np.sqrt(hidden)
    shapes = {"weight": (1, 4 * hidden, 8), "recurrence": (1, 4 * hidden, hidden), "bias": (1, 8 * hidden)}
    names = [
        net.store(name, net.rng.uniform(-bound, bound, shape).astype(np.float32)) for name, shape in shapes.items()
    ]
    net.add("LSTM", *names, hidden_size=hidden)
    net.add("Squeeze", net.store("axis", np.array([1], np.int64))).add("Transpose", perm=[1, 0, 2])
    net.add("MatMul", net.normal("fc.weight", (hidden, papers.CHARACTERS), hidden))
    net.add("Add", net.zeros("fc.bias", papers.CHARACTERS))
    return load(net.done("characters", [steps, papers.CHARACTERS]))
