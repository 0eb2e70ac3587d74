"""What federated averaging equals, and what it does not: McMahan et al. 2017, section 2, on real training.

With one full-batch local step, FedAvg is distributed SGD, is FedSGD, is gradient descent on the pooled data. The
judge of "gradient descent" is a float64 network in NumPy, below, that shares no code with the core.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from edgefl import Trainer, _core, load, simulate
from edgefl.core.seeds import derived_seed
from edgefl.data import Dataset
from edgefl.device.training import arena_batch
from edgefl.onnx import zoo
from edgefl.onnx.model import Model
from edgefl.simulation.split.partitions import split
from edgefl.strategies.composed import Composed

ROUNDS, LR = 8, 0.1
TOLERANCE = 1e-6  # of a param, after ROUNDS: float32 rounding alone
APART = 1e-3  # what is not equal differs by more than this


@dataclass(frozen=True)
class Case:
    """One model and the loss it is trained with. Sizes from input to output, as in zoo.mlp."""

    sizes: tuple[int, ...]
    loss: str

    def model(self) -> Model:
        return load(zoo.mlp(list(self.sizes), seed=1), loss=self.loss)

    def data(self, counts: tuple[int, ...]) -> Dataset:
        """Examples of len(counts) devices, n_k = counts[k]. Not IID: each device's x lies elsewhere."""
        rng = np.random.default_rng(2)
        device = np.repeat(np.arange(len(counts)), counts)
        x = rng.normal(size=(len(device), self.sizes[0])) + np.linspace(-0.7, 0.7, len(counts))[device, None]
        score = x @ rng.normal(size=(self.sizes[0], self.sizes[-1])) + 0.5 * rng.normal(size=(len(device), 1)) ** 2
        y = {"mse": score, "bce": (score > 0).astype(np.float32), "cross_entropy": score.argmax(axis=1)}[self.loss]
        order = rng.permutation(len(device))
        return Dataset(x[order], y[order], device_train=device[order])


CASES = {
    "linear": Case((3, 1), "mse"),
    "logistic": Case((3, 1), "bce"),
    "softmax": Case((3, 4), "cross_entropy"),
    "mlp": Case((3, 8, 4), "cross_entropy"),
    "mlp of two outputs": Case((3, 8, 5, 2), "mse"),
}
COUNTS = {"equal": (20, 20, 20), "unequal": (3, 16, 41)}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_count = pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())


def exact_gradient(case: Case, params: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P,) float64 gradient of the mean loss of a ReLU network, layer by layer as in the textbook."""
    layers, at = [], 0
    for fan_in, fan_out in pairwise(case.sizes):
        weight = params[at : at + fan_in * fan_out].reshape(fan_in, fan_out)
        at += weight.size + fan_out
        layers.append((weight, params[at - fan_out : at]))
    activations = [np.float64(x)]
    for weight, bias in layers:
        activations.append(np.maximum(activations[-1] @ weight + bias, 0))
    output = activations[-2] @ layers[-1][0] + layers[-1][1]
    if case.loss == "mse":
        back = 2 * (output - y) / output.size
    elif case.loss == "bce":
        back = (1 / (1 + np.exp(-output)) - y) / output.size
    else:
        exp = np.exp(output - output.max(axis=1, keepdims=True))
        back = (exp / exp.sum(axis=1, keepdims=True) - np.eye(case.sizes[-1])[y]) / len(output)
    gradient: list[np.ndarray] = []
    for (weight, _), activation in zip(reversed(layers), reversed(activations[:-1]), strict=True):
        gradient = [(activation.T @ back).ravel(), back.sum(axis=0), *gradient]
        back = (back @ weight.T) * (activation > 0)
    return np.concatenate(gradient)


def gradient_descent(case: Case, data: Dataset, steps: int = ROUNDS) -> np.ndarray:
    """(P,) float64 after `steps` steps on the pooled data."""
    params = np.float64(case.model().params)
    for _ in range(steps):
        params = params - LR * exact_gradient(case, params, data.x_train, data.y_train)
    return params


def distributed_sgd(case: Case, data: Dataset, weights: np.ndarray) -> np.ndarray:
    """(P,): each round every device sends one gradient, and a coordinator steps along their weighted average."""
    model = case.model()
    trainer, params = Trainer(model.plan), model.params
    for _ in range(ROUNDS):
        mine = [data.device_train == k for k in range(len(weights))]
        gradients = [trainer.gradient(params, data.x_train[k], data.y_train[k]) for k in mine]
        params = params - np.float32(LR) * np.average(gradients, axis=0, weights=weights).astype(np.float32)
    return params


def federated(case: Case, data: Dataset, rounds: int = ROUNDS, **options) -> np.ndarray:
    """(P,) after `rounds` rounds of edgefl.simulate, one device for each that the data names."""
    defaults = {"partition": "natural", "devices": len(np.unique(data.device_train)), "batch_size": "all", "lr": LR}
    defaults |= {"codec": "raw32", "downlink": "raw32", "min_reports": 1}
    history = simulate(case.model(), data, rounds=rounds, **{**defaults, **options})
    assert history.final.committed == rounds
    return history.params


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return np.abs(np.float64(a) - b).max()


@every_case
@every_count
def test_one_full_batch_step_of_fedavg_is_distributed_sgd_is_gradient_descent(case, counts):
    data = case.data(counts)
    expected = gradient_descent(case, data)
    assert distance(expected, case.model().params) > 0.02  # it went somewhere
    assert distance(distributed_sgd(case, data, np.array(counts)), expected) < TOLERANCE
    assert distance(federated(case, data), expected) < TOLERANCE
    assert distance(federated(case, data, strategy="fedsgd"), expected) < TOLERANCE


@every_case
def test_without_the_weights_n_k_it_would_not_be(case):
    data = case.data(COUNTS["unequal"])
    assert distance(distributed_sgd(case, data, np.ones(3)), gradient_descent(case, data)) > APART


@every_case
def test_several_local_steps_are_not_gradient_descent_but_cheaper_in_rounds(case):
    data, steps = case.data(COUNTS["unequal"]), 5
    params = federated(case, data, epochs=steps)
    loss = {
        name: Trainer(case.model().plan).evaluate(reached, data.x_train, data.y_train).loss
        for name, reached in (("fedavg", params), ("as many rounds", gradient_descent(case, data)))
    }
    assert loss["fedavg"] < 0.97 * loss["as many rounds"]
    assert distance(params, gradient_descent(case, data, ROUNDS)) > 10 * APART
    assert distance(params, gradient_descent(case, data, ROUNDS * steps)) > APART


@every_case
@pytest.mark.parametrize("options", [{"epochs": 3, "batch_size": 10}, {"epochs": 2, "batch_size": "all"}], ids=str)
def test_a_device_that_holds_all_data_trains_as_if_alone_bit_for_bit(case, options):
    data, seed = case.data((60,)), 5
    model = case.model()
    trainer, params = Trainer(model.plan, batch=arena_batch(options["batch_size"])), model.params
    extra = {"momentum": 0.5, "weight_decay": 0.01, "clip_norm": 1.0}
    for round in range(1, ROUNDS + 1):
        key = derived_seed(seed, round, "dev-0")
        params = params + trainer.fit(params, data.x_train, data.y_train, lr=LR, seed=key, **options, **extra).delta
    reached = federated(case, data, seed=seed, **extra, **options)
    assert reached.tobytes() == params.tobytes()


@every_case
def test_fedavg_on_one_device_is_mini_batch_sgd_on_the_pooled_data(case):
    data, seed, epochs = case.data((60,)), 5, 2
    params = np.float64(case.model().params)
    for round in range(1, ROUNDS + 1):
        for epoch in range(epochs):
            order = _core.permutation(60, derived_seed(seed, round, "dev-0"), epoch)
            for batch in np.array_split(order, 6):
                params = params - LR * exact_gradient(case, params, data.x_train[batch], data.y_train[batch])
    assert distance(federated(case, data, seed=seed, epochs=epochs, batch_size=10), params) < 5 * TOLERANCE


@every_case
def test_any_number_of_workers_gives_the_same_bits_and_so_does_the_same_seed(case):
    data, options = case.data((5,) * 12), {"epochs": 2, "batch_size": 2, "fraction": 0.5}
    bits = [federated(case, data, workers=workers, seed=3, **options).tobytes() for workers in (1, 2, 5, 5)]
    assert len(set(bits)) == 1
    assert federated(case, data, seed=4, **options).tobytes() != bits[0]


@every_case
def test_the_order_of_the_devices_does_not_matter(case):
    counts = COUNTS["unequal"]
    data = case.data(counts)
    bits = set()
    for ranks in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        renamed = Dataset(data.x_train, data.y_train, device_train=np.array(ranks)[data.device_train])
        bits.add(federated(case, renamed, epochs=3).tobytes())
    assert len(bits) == 1


def test_the_order_of_arrival_does_not_matter(monkeypatch):
    case = CASES["mlp"]
    data, arrivals, add = case.data((6,) * 10), [], Composed.add

    def record(self, update):
        arrivals[-1].append(update.device)
        add(self, update)

    monkeypatch.setattr(Composed, "add", record)
    bits = set()
    for faults in ("", "straggler:0.5:7", "straggler:0.3:100"):
        arrivals.append([])
        bits.add(federated(case, data, faults=faults, batch_size=4).tobytes())
    assert len({tuple(order) for order in arrivals}) == 3
    assert len(bits) == 1


@every_case
def test_parts_that_a_partition_deals_are_the_pooled_data_again(case):
    data = case.data((60,))
    parts = split(data, "unbalanced:1", 7, 0)
    assert len({len(part) for part in parts}) > 2
    params = federated(case, data, partition="unbalanced:1", devices=7)
    assert distance(params, gradient_descent(case, data)) < TOLERANCE
