"""The core against float64 NumPy: forward values, losses, and every gradient by central differences of the NumPy net.

A reference is one plain function an op, `forward(node, *inputs, *params) -> y`, arrays with the samples' axis first and
channels last. Its gradients need no second derivation by hand: in float64 a central difference is good to 1e-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan

Forward = Callable[..., np.ndarray]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> float:
    rows = logits.reshape(-1, logits.shape[-1])
    return float(-np.log(softmax(rows)[np.arange(len(rows)), y.ravel()]).mean())


def focal(logits: np.ndarray, y: np.ndarray) -> float:
    rows = logits.reshape(-1, logits.shape[-1])
    p = softmax(rows)[np.arange(len(rows)), y.ravel()]
    return float((-((1 - p) ** 2) * np.log(p)).mean())


def hinge(logits: np.ndarray, y: np.ndarray) -> float:
    rows, labels = logits.reshape(-1, logits.shape[-1]), y.ravel()
    margins = np.maximum(0, 1 - rows[np.arange(len(rows)), labels][:, None] + rows)
    margins[np.arange(len(rows)), labels] = 0
    return float(margins.mean())


def huber(z: np.ndarray, y: np.ndarray) -> float:
    size = np.abs(z - y.reshape(z.shape))
    return float(np.where(size < 1, size**2 / 2, size - 0.5).mean())


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "hinge": hinge,
    "huber": huber,
    "l1": lambda z, y: float(np.abs(z - y.reshape(z.shape)).mean()),
    "mse": lambda z, y: float(((z - y.reshape(z.shape)) ** 2).mean()),
    "bce": lambda z, y: float((np.logaddexp(0, z) - y.reshape(z.shape) * z).mean()),
}
BASIC: dict[str, Forward] = {
    "dense": lambda node, x, w, b=0.0: x @ (w.T if node.ints else w) + b,
    "relu": lambda node, x: np.maximum(x, 0),
    "tanh": lambda node, x: np.tanh(x),
    "sigmoid": lambda node, x: 1 / (1 + np.exp(-x)),
    "flatten": lambda node, x: x.reshape(len(x), -1),
    "add": lambda node, a, b: a + b,
}


def run(plan: Plan, forwards: dict[str, Forward], params: np.ndarray, x: np.ndarray, until: int) -> np.ndarray:
    """Value number `until` of the NumPy net."""
    ends = np.cumsum([p.size for p in plan.params])
    tensors = [w.reshape(p.shape) for w, p in zip(np.split(np.float64(params), ends[:-1]), plan.params, strict=True)]
    values: list[np.ndarray] = [np.float64(x)]
    for node in plan.nodes[:until]:
        y = forwards[node.op](node, *(values[i] for i in node.inputs), *(tensors[i] for i in node.params))
        values.append(y)
    return values[until]


def numeric_gradient(loss: Callable[[np.ndarray], float], params: np.ndarray, count: int) -> np.ndarray:
    """d loss / d params[:count] in float64, coordinate by coordinate."""
    gradient, step = np.zeros(len(params)), 1e-5
    for i in range(count):
        moved = np.float64(params).copy()
        moved[i] += step
        above = loss(moved)
        moved[i] -= 2 * step
        gradient[i] = (above - loss(moved)) / (2 * step)
    return gradient


def check(
    plan: Plan,
    forwards: dict[str, Forward],
    *,
    samples: int = 3,
    batch: int = 4,
    seed: int = 0,
    x: np.ndarray | None = None,
    params: np.ndarray | None = None,
    tolerance: float = 1e-4,
    compare_predict: bool = True,
) -> None:
    """Forward, loss and gradient of the core against NumPy, relative to the largest number compared, and a
    directional derivative of the core's own loss. Draw x and params away from kinks where an op has any.
    """
    forwards = {**BASIC, **forwards}
    rng = np.random.default_rng(seed)
    net = _core.Net(plan, batch)
    if x is None:
        x = rng.normal(0, 1, (samples, *plan.input_shape))
    if params is None:
        params = rng.normal(0, 0.5, plan.num_params)
    x, params = np.float32(x), np.float32(params)
    shape = net.shapes[plan.loss_input]
    if net.target_size:
        y: np.ndarray = rng.uniform(0, 1, (len(x), *shape)).astype(np.float32)
    else:
        y = rng.integers(0, shape[-1], (len(x), *shape[:-1]))
    if compare_predict:
        out = np.empty((len(x), *net.shapes[plan.output]), np.float32)
        net.predict(params, x.ravel(), out.reshape(-1))
        close(out, run(plan, forwards, params, x, plan.output), tolerance)

    def loss(p: np.ndarray) -> float:
        return LOSSES[plan.loss](run(plan, forwards, p, x, plan.loss_input), y)

    gradient = np.full(plan.num_params, np.nan, np.float32)
    net.gradient(params, x.ravel(), y.ravel(), gradient)
    reference = numeric_gradient(loss, params, plan.num_trainable)
    close(gradient, reference, tolerance)
    direction = rng.normal(0, 1, plan.num_params) * (np.arange(plan.num_params) < plan.num_trainable)
    slope = (loss(params + 1e-5 * direction) - loss(params - 1e-5 * direction)) / 2e-5
    assert abs(slope - gradient @ direction) <= 1e-3 * max(1e-3, np.abs(gradient * direction).sum())


def close(ours: np.ndarray, reference: np.ndarray, tolerance: float) -> None:
    """Relative to the largest magnitude: cancellation in float32 is no error of the formula."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    scale = max(1e-3, float(np.abs(reference).max(initial=0)))
    worst = float(np.abs(ours - reference).max(initial=0))
    assert worst <= tolerance * scale, f"off by {worst:.3g} of {scale:.3g}"


def fused_equals_buffered(plan: Plan, *, samples: int = 7, seed: int = 0, **options: Any) -> None:
    """The params after some steps, moved node by node or from the whole gradient: equal to float32 rounding."""
    rng = np.random.default_rng(seed)
    net = _core.Net(plan, 4)
    params = rng.normal(0, 0.5, plan.num_params).astype(np.float32)
    x = rng.normal(0, 1, (samples, *plan.input_shape)).astype(np.float32)
    shape = net.shapes[plan.loss_input]
    y = (
        rng.uniform(0, 1, samples * net.target_size).astype(np.float32)
        if net.target_size
        else rng.integers(0, shape[-1], samples * net.label_count)
    )
    rates = dict(lr=0.05, momentum=0.9, weight_decay=0.01, prox_mu=0.1, clip_norm=0.0)
    common = dict(epochs=2, batch_size=4, max_steps=0, seed=1, **{**rates, **options})
    deltas = []
    for buffered in (False, True):
        delta = np.empty_like(params)
        net.fit(params, x.ravel(), y, delta, buffered=buffered, **common)
        deltas.append(delta)
    close(deltas[0], deltas[1], 1e-5)


def one_op(op: str, shape: list[int], params: list[Param] = [], ints: list[int] = [], floats: list[float] = []) -> Plan:  # noqa: B006
    """The op between a dense layer, so that its input has a gradient to check, and the loss."""
    last = shape[-1]
    nodes = [Node("dense", [0], [0]), Node(op, [1], [i + 1 for i in range(len(params))], ints, floats)]
    trained = [Param("front", [last, last]), *params]
    order = sorted(range(len(trained)), key=lambda i: not trained[i].trainable)
    place = {old: new for new, old in enumerate(order)}
    nodes = [Node(n.op, n.inputs, [place[p] for p in n.params], n.ints, n.floats) for n in nodes]
    return Plan(shape, nodes, [trained[i] for i in order], "mse", 2, 2)
