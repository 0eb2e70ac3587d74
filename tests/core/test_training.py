"""The core's gradients and SGD against a float64 NumPy network and its numerical derivatives."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

# ---- the reference: one function a value, float64, forward and backward --------------------------------------


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


FORWARD = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softmax": softmax,
    "log_softmax": lambda x: np.log(softmax(x)),
    "flatten": lambda x: x.reshape(len(x), -1),
    "add": lambda a, b: a + b,
    "dense": lambda x, w, b=0.0: x @ w + b,
}
BACKWARD = {  # of one input: dx from dy, x, y
    "relu": lambda dy, x, y: dy * (y > 0),
    "tanh": lambda dy, x, y: dy * (1 - y * y),
    "sigmoid": lambda dy, x, y: dy * y * (1 - y),
    "softmax": lambda dy, x, y: y * (dy - (dy * y).sum(-1, keepdims=True)),
    "log_softmax": lambda dy, x, y: dy - np.exp(y) * dy.sum(-1, keepdims=True),
    "flatten": lambda dy, x, y: dy.reshape(x.shape),
}


def unpack(plan, params):
    ends = np.cumsum([p.size for p in plan.params])
    return [w.reshape(p.shape) for w, p in zip(np.split(params, ends[:-1]), plan.params, strict=True)]


def run(plan, params, x):
    """All values, float64."""
    tensors, values = unpack(plan, np.float64(params)), [np.float64(x)]
    for node in plan.nodes:
        inputs = [values[i] for i in node.inputs]
        values.append(FORWARD[node.op](*inputs, *(tensors[i] for i in node.params)))
    return values


def loss_of(plan, logits, y):
    """Mean loss, and its gradient."""
    if plan.loss == "cross_entropy":
        rows = np.arange(len(y))
        gradient = softmax(logits)
        loss = -np.log(gradient[rows, y]).mean()
        gradient[rows, y] -= 1
        return loss, gradient / len(y)
    y = np.float64(y).reshape(logits.shape)
    if plan.loss == "bce":
        loss = np.logaddexp(0, logits) - y * logits
        return loss.mean(), (FORWARD["sigmoid"](logits) - y) / y.size
    return ((logits - y) ** 2).mean(), 2 * (logits - y) / y.size


def reference_gradient(plan, params, x, y):
    values, tensors = run(plan, params, x), unpack(plan, np.float64(params))
    d_values = [np.zeros_like(v) for v in values]
    d_tensors = [np.zeros_like(t) for t in tensors]
    loss, d_values[plan.loss_input] = loss_of(plan, values[plan.loss_input], y)
    for i in reversed(range(plan.loss_input)):
        node, dy = plan.nodes[i], d_values[i + 1]
        source = node.inputs[0]
        if node.op == "dense":
            rows, d_rows = values[source].reshape(-1, values[source].shape[-1]), dy.reshape(-1, dy.shape[-1])
            d_values[source] = d_values[source] + dy @ tensors[node.params[0]].T
            d_tensors[node.params[0]] += rows.T @ d_rows
            if len(node.params) == 2:
                d_tensors[node.params[1]] += d_rows.sum(0)
        elif node.op == "add":
            for k in node.inputs:
                d_values[k] = d_values[k] + dy
        else:
            d_values[source] = d_values[source] + BACKWARD[node.op](dy, values[source], values[i + 1])
    for param, d_tensor in zip(plan.params, d_tensors, strict=True):
        d_tensor *= param.trainable
    return loss, np.concatenate([d.ravel() for d in d_tensors])


# ---- plans ----------------------------------------------------------------------------------------------------


def mlp(sizes, activation="relu", loss="cross_entropy", bias=True, frozen=0):
    nodes, params = [], []
    for i, (wide, out) in enumerate(itertools.pairwise(sizes)):
        own = [len(params), len(params) + 1] if bias else [len(params)]
        params += [Param(f"w{i}", [wide, out]), Param(f"b{i}", [out])][: len(own)]
        nodes.append(Node("dense", [len(nodes)], own))
        if i < len(sizes) - 2:
            nodes.append(Node(activation, [len(nodes)]))
    params = [Param(p.name, p.shape, i < len(params) - frozen) for i, p in enumerate(params)]
    return Plan([sizes[0]], nodes, params, loss, len(nodes), len(nodes))


def dense(source, *params):
    return Node("dense", [source], list(params))


RESIDUAL = Plan(  # a value read three times, tied weights, an activation over a flattened value
    [2, 3],
    [
        Node("flatten", [0]),
        dense(1, 0, 1),
        Node("relu", [2]),
        dense(3, 2),
        Node("add", [4, 3]),
        Node("add", [5, 3]),
        dense(6, 2),
        Node("tanh", [7]),
        Node("add", [8, 8]),
    ],
    [Param("w", [6, 5]), Param("b", [5]), Param("tied", [5, 5])],
    "cross_entropy",
    9,
    9,
)
ROWS = Plan(  # dense along the last of several axes
    [3, 4],
    [dense(0, 0, 1), Node("sigmoid", [1]), dense(2, 2), Node("flatten", [3])],
    [Param("w", [4, 7]), Param("b", [7]), Param("v", [7, 2])],
    "mse",
    4,
    4,
)
BRANCH = Plan(  # an activation whose input is read again, and its gradient through both ways
    [4],
    [dense(0, 0), Node("tanh", [1]), Node("add", [1, 2]), Node("relu", [3]), dense(4, 1)],
    [Param("w", [4, 6]), Param("v", [6, 3])],
    "cross_entropy",
    5,
    5,
)
STACKED = Plan(  # activations upon activations, one under another name
    [2, 3],
    [
        dense(0, 0),
        Node("sigmoid", [1]),
        Node("tanh", [2]),
        Node("flatten", [3]),
        Node("relu", [4]),
        Node("softmax", [5]),
        Node("sigmoid", [6]),
    ],
    [Param("w", [3, 5])],
    "mse",
    7,
    7,
)
TAIL = Plan(  # the loss sees the logits, predict the probabilities
    [5], [dense(0, 0, 1), Node("sigmoid", [1])], [Param("w", [5, 3]), Param("b", [3])], "bce", 1, 2
)
PLANS = {
    "logistic": mlp([7, 3]),
    "one-by-one": mlp([1, 1], loss="mse"),
    "relu": mlp([17, 33, 200, 10]),
    "tanh": mlp([3, 17, 5], "tanh", "mse"),
    "sigmoid": mlp([16, 64, 4], "sigmoid", "bce"),
    "softmax": mlp([6, 9, 3], "softmax", "mse"),
    "log_softmax": mlp([6, 19, 3], "log_softmax", "mse"),
    "no-bias": mlp([9, 8, 7], bias=False),
    "frozen-head": mlp([9, 8, 7], frozen=2),
    "residual": RESIDUAL,
    "rows": ROWS,
    "branch": BRANCH,
    "stacked": STACKED,
    "tail": TAIL,
}


def problem(plan, n, seed=0):
    rng = np.random.default_rng(seed)
    params = rng.standard_normal(plan.num_params).astype(np.float32) * 0.3
    x = rng.standard_normal((n, *plan.input_shape)).astype(np.float32)
    shape = run(plan, params, x)[plan.loss_input].shape
    if plan.loss == "cross_entropy":
        return params, x, rng.integers(0, shape[1], n)
    return params, x, rng.random(shape).astype(np.float32)


@pytest.fixture(params=PLANS)
def plan(request):
    return PLANS[request.param]


def relative_error(a, b):
    return np.linalg.norm(np.float64(a) - b) / max(np.linalg.norm(b), 1e-12)


# ---- gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 10, 32])
def test_gradient_and_loss_match_the_reference(plan, n):
    params, x, y = problem(plan, n)
    trainer = Trainer(plan)
    loss, expected = reference_gradient(plan, params, x, y)
    gradient = trainer.gradient(params, x, y)
    assert relative_error(gradient, expected) < 1e-4
    assert math.isclose(trainer.evaluate(params, x, y).loss, loss, rel_tol=1e-5)
    assert np.allclose(trainer.predict(params, x), run(plan, params, x)[plan.output], rtol=1e-4, atol=1e-5)


def test_gradient_matches_the_numerical_derivative(plan):
    params, x, y = problem(plan, 8, seed=1)
    gradient = np.float64(Trainer(plan).gradient(params, x, y))
    trained = np.repeat([p.trainable for p in plan.params], [p.size for p in plan.params])
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(len(params)) * trained
        direction /= np.linalg.norm(direction)
        at = [loss_of(plan, run(plan, params + h * direction, x)[plan.loss_input], y)[0] for h in (1e-6, -1e-6)]
        assert gradient @ direction == pytest.approx((at[0] - at[1]) / 2e-6, rel=1e-3, abs=1e-4)


def test_pieces_add_up_to_the_whole_batch(plan):
    params, x, y = problem(plan, 37)
    whole = Trainer(plan, batch=37).gradient(params, x, y)
    for batch in (1, 10, 36):
        assert relative_error(Trainer(plan, batch=batch).gradient(params, x, y), np.float64(whole)) < 1e-5


@pytest.mark.parametrize("wide", [1, 3, 16, 17, 200])
@pytest.mark.parametrize("out", [1, 2, 15, 33, 64, 65])
def test_matrix_products_of_odd_sizes(wide, out):
    plan = mlp([5, wide, out], "relu", "mse")
    params, x, y = problem(plan, 6)
    assert relative_error(Trainer(plan).gradient(params, x, y), reference_gradient(plan, params, x, y)[1]) < 1e-4


# ---- SGD ------------------------------------------------------------------------------------------------------


def reference_fit(plan, params, x, y, *, steps, batch_size, seed, lr, momentum=0, weight_decay=0, prox_mu=0, clip=None):
    w = w0 = np.float64(params)
    trained = np.repeat([p.trainable for p in plan.params], [p.size for p in plan.params])
    velocity, done, epoch = np.zeros_like(w), 0, 0
    while done < steps:
        order = _core.permutation(len(x), seed, epoch)
        for start in range(0, len(x), batch_size):
            if done == steps:
                break
            rows = order[start : start + batch_size]
            g = reference_gradient(plan, w, x[rows], y[rows])[1]
            if clip is not None:
                g = g * min(1, clip / np.linalg.norm(g))
            g = (g + weight_decay * w + prox_mu * (w - w0)) * trained
            velocity = momentum * velocity + g
            w, done = w - lr * velocity, done + 1
        epoch += 1
    return w - w0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"prox_mu": 1.0},
        {"clip_norm": 0.5},
        {"momentum": 0.5, "weight_decay": 0.01, "prox_mu": 0.1, "clip_norm": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["relu", "residual", "frozen-head"])
def test_twenty_steps_match_the_reference(name, options):
    plan = PLANS[name]
    params, x, y = problem(plan, 43, seed=2)
    fit = {"batch_size": 10, "lr": 0.05, "seed": 7, **options}
    result = Trainer(plan, batch=4).fit(params, x, y, epochs=9, max_steps=20, **fit)
    if "clip_norm" in fit:
        fit["clip"] = fit.pop("clip_norm")
    expected = reference_fit(plan, params, x, y, steps=20, **fit)
    assert result.steps == 20
    assert relative_error(result.delta, expected) < 1e-4


def test_a_full_batch_is_one_unshuffled_step_however_small_the_arena():
    plan = PLANS["relu"]
    params, x, y = problem(plan, 50)
    result = Trainer(plan, batch=7).fit(params, x, y, batch_size="all", lr=0.1)
    loss, gradient = reference_gradient(plan, params, x, y)
    assert result.steps == 1
    assert relative_error(result.delta, -0.1 * gradient) < 1e-4
    assert result.loss == pytest.approx(loss, rel=1e-5)


def test_the_short_last_batch_is_trained_and_weighed_by_its_samples():
    plan = PLANS["logistic"]
    params, x, y = problem(plan, 5)
    result = Trainer(plan).fit(params, x, y, batch_size=4, lr=1e-12)
    assert result.steps == 2
    assert result.loss == pytest.approx(reference_gradient(plan, params, x, y)[0], rel=1e-5)
