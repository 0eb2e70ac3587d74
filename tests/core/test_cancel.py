"""A cancel ends training, evaluation and prediction within a second, inside a batch and inside one op of one example;
and the pieces that make this possible compute what the whole does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Cancelled, Trainer, forward_flops

WITHIN_S = 1.0
RNG = np.random.default_rng(0)


def sequence(node: Node, params: list[Param], shape: list[int], tail: list[Node] | None = None) -> Plan:
    """The input times a trained number, one long op, and the mean of all that it makes."""
    scale = Node("mul", [0], [0])
    ops = [scale, node, *(tail or [])]
    axes = list(range(3 if node.op in ("conv", "depthwise", "maxpool") else 2))
    ops.append(Node("mean", [len(ops)], [], axes))
    return Plan(shape, ops, [Param("scale", [1]), *params], "mse", len(ops), len(ops))


SLIDE = [1, 1, 0, 0, 0, 0]
H = 1024
# Each takes seconds in one call of one op for one example, within the default limits of an agent.
LONG = {
    "dense": sequence(Node("dense", [1], [1]), [Param("w", [2048, 8192])], [2**13, 2048]),
    "matmul": sequence(Node("matmul", [1, 1], [], [1]), [], [5000, 4096]),
    "conv": sequence(Node("conv", [1], [1], [*SLIDE, 1, 1, 1]), [Param("w", [64, 64, 8, 8])], [512, 512, 8]),
    "far apart": sequence(  # few taps reach a pixel, and they are looked for at each: long in backward alone
        Node("conv", [1], [1], [4096, 4096, 0, 0, 0, 0, 1, 1, 1]), [Param("w", [1024, 1024, 1, 1])], [4096, 4096, 1]
    ),
    "depthwise": sequence(Node("depthwise", [1], [1], [*SLIDE, 1, 1]), [Param("w", [65, 65, 16])], [1024, 1024, 16]),
    "maxpool": sequence(Node("maxpool", [1], [], [129, 129, *SLIDE]), [], [1024, 1024, 16]),
    "lrn": sequence(Node("lrn", [1], [], [2**18], [1e-4, 0.75, 1.0]), [], [1, 2**18]),
    "lstm": sequence(
        Node("lstm", [1], [1, 2, 3, 4], [H, 0, 0]),
        [Param("wx", [1, 4, 4 * H]), Param("wh", [1, H, 4 * H]), Param("bx", [1, 4 * H]), Param("bh", [1, 4 * H])],
        [6000, 4],
    ),
    "gru": sequence(
        Node("gru", [1], [1, 2, 3, 4], [H, 0, 0, 1]),
        [Param("wx", [1, 4, 3 * H]), Param("wh", [1, H, 3 * H]), Param("bx", [1, 3 * H]), Param("bh", [1, 3 * H])],
        [8000, 4],
    ),
}


def cancelled_after(work: Callable[[], object], trainer: Trainer, after_s: float) -> float:
    """Seconds from the cancel, `after_s` after the start of `work`, to its end; it must end by Cancelled."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(after_s)
    assert thread.is_alive(), "it was to take long"
    trainer.cancel()
    began = time.monotonic()
    thread.join(60)
    took = time.monotonic() - began
    assert isinstance(outcome[0], Cancelled)
    return took


@pytest.mark.parametrize("name", LONG)
def test_cancel_acts_within_a_second_inside_one_op_of_one_example(name):
    plan = LONG[name]
    trainer = Trainer(plan, batch=1)
    params = np.full(plan.num_params, 1e-3, np.float32)
    x, y = np.ones((1, *plan.input_shape), np.float32), np.zeros(1, np.float32)
    fit = lambda: trainer.fit(params, x, y, epochs=10**6, batch_size=1, lr=1e-9)  # noqa: E731
    assert cancelled_after(fit, trainer, 0.7) < WITHIN_S


@pytest.mark.parametrize("call", ["evaluate", "gradient", "predict", "fit"])
def test_cancel_acts_in_every_call(call):
    plan = LONG["conv"]
    trainer = Trainer(plan, batch=1)
    params = np.full(plan.num_params, 1e-3, np.float32)
    x, y = np.ones((20, *plan.input_shape), np.float32), np.zeros(20, np.float32)
    data = (x,) if call == "predict" else (x, y)
    assert cancelled_after(lambda: getattr(trainer, call)(params, *data), trainer, 0.3) < WITHIN_S


def test_a_cancel_without_a_call_leaves_nothing_behind():
    trainer = Trainer(Plan([2], [Node("dense", [0], [0])], [Param("w", [2, 1])], "mse", 1, 1))
    for call, data in [("fit", ([[1, 2]], [[3]])), ("evaluate", ([[1, 2]], [[3]])), ("predict", ([[1, 2]],))]:
        trainer.cancel()
        getattr(trainer, call)(np.ones(2), *data)


def test_a_backward_pass_is_cancelled_too():
    plan = sequence(Node("dense", [1], [1]), [Param("w", [4096, 2048])], [2**12, 4096])
    trainer = Trainer(plan, batch=1)
    params = np.full(plan.num_params, 1e-3, np.float32)
    x, y = np.ones((1, *plan.input_shape), np.float32), np.zeros(1, np.float32)
    began = time.monotonic()
    trainer.evaluate(params, x, y)
    forward_s = time.monotonic() - began
    assert cancelled_after(lambda: trainer.gradient(params, x, y), trainer, 1.3 * forward_s) < WITHIN_S


# The pieces


def test_pieces_of_a_dense_layer_compute_what_the_whole_does():
    m, n, k = 1500, 512, 768  # 590 million multiplications: three pieces
    plan = Plan([m, k], [Node("dense", [0], [0, 1])], [Param("w", [k, n]), Param("b", [n])], "mse", 1, 1)
    params = RNG.normal(size=plan.num_params).astype(np.float32)
    x, y = RNG.normal(size=(1, m, k)).astype(np.float32), RNG.normal(size=(1, m, n)).astype(np.float32)
    trainer = Trainer(plan, batch=1)
    w, b = params[: k * n].reshape(k, n), params[k * n :]
    out = x[0].astype(np.float64) @ w + b
    np.testing.assert_allclose(trainer.predict(params, x)[0], out, rtol=1e-3, atol=1e-3)
    error = 2 * (out - y[0]) / (m * n)
    slope = np.concatenate([(x[0].T.astype(np.float64) @ error).ravel(), error.sum(0)])
    np.testing.assert_allclose(trainer.gradient(params, x, y), slope, rtol=1e-3, atol=1e-5)
    moved = trainer.fit(params, x, y, lr=1.0, batch_size=1).delta  # fused
    np.testing.assert_allclose(moved, -slope, rtol=2e-3, atol=2e-5)
    heavy = trainer.fit(params, x, y, lr=1.0, momentum=0.5, batch_size=1).delta  # the other way to fuse
    np.testing.assert_allclose(heavy, -slope, rtol=2e-3, atol=2e-5)


def test_pieces_of_a_product_of_two_values_compute_what_the_whole_does():
    m, k, n = 700, 800, 900
    nodes = [
        Node("slice", [0], [], [0, 0, m]), Node("slice", [0], [], [0, m, n]), Node("matmul", [1, 2], [], [1]),
        Node("mul", [3], [0]),
    ]  # fmt: skip
    plan = Plan([m + n, k], nodes, [Param("s", [1])], "mse", 4, 4)
    x = RNG.normal(size=(1, m + n, k)).astype(np.float32)
    found = Trainer(plan, batch=1).predict(np.ones(1), x)[0]
    np.testing.assert_allclose(found, x[0, :m].astype(np.float64) @ x[0, m:].T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("op", ["conv", "depthwise"])
def test_pieces_of_windows_compute_what_each_example_alone_does(op):
    c = 64 if op == "conv" else 96
    shape, ints = (
        ([3, 3, c, 64], [1, 1, 1, 1, 1, 1, 1, 1, 1]) if op == "conv" else ([9, 9, c], [1, 1, 4, 4, 4, 4, 1, 1])
    )
    nodes = [Node("mul", [0], [0]), Node(op, [1], [1, 2], ints), Node("mean", [2], [], [0, 1])]
    params = [Param("s", [1]), Param("w", shape), Param("b", shape[-1:])]
    plan = Plan([40, 40, c], nodes, params, "mse", 3, 3)
    w = RNG.normal(size=plan.num_params).astype(np.float32)
    x = RNG.normal(size=(40, 40, 40, c)).astype(np.float32)
    y = RNG.normal(size=(40, shape[-1])).astype(np.float32)
    whole, alone = Trainer(plan, batch=40), Trainer(plan, batch=1)
    assert np.array_equal(whole.predict(w, x), alone.predict(w, x))
    np.testing.assert_allclose(whole.gradient(w, x, y), alone.gradient(w, x, y), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("op", ["maxpool", "avgpool"])
def test_pieces_of_a_pool_compute_what_the_whole_does(op):
    h, w, c, k = 302, 500, 16, 301  # 1.4 million numbers a window: a piece is part of a row
    ints = [k, k, 1, 1, 0, 0, 0, 0] + ([1] if op == "avgpool" else [])
    nodes = [Node("mul", [0], [0]), Node(op, [1], [], ints), Node("mean", [2], [], [0, 1])]
    plan = Plan([h, w, c], nodes, [Param("s", [1])], "mse", 3, 3)
    x = RNG.normal(size=(1, h, w, c)).astype(np.float32)
    x[0, ::7, ::5] += 3
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (k, k), axis=(0, 1))
    pooled = np.stack([
        [(windows[i, j].max((1, 2)) if op == "maxpool" else windows[i, j].mean((1, 2), dtype=np.float64))
         for j in range(windows.shape[1])] for i in range(windows.shape[0])
    ])  # fmt: skip
    out = pooled.mean((0, 1))
    trainer = Trainer(plan, batch=1)
    np.testing.assert_allclose(trainer.predict(np.ones(1), x)[0], out, rtol=1e-4, atol=1e-5)
    slope = trainer.gradient(np.ones(1), x, np.zeros((1, c)))[0]
    np.testing.assert_allclose(slope, 2 * (out**2).mean(), rtol=1e-3)


def test_pieces_of_many_elements_compute_what_the_whole_does():
    rows, n = 2500, 2048  # more than one piece of 2^22
    nodes = [Node("mul", [0], [0]), Node("pow", [1], [], [], [3.0]), Node("relu", [2]), Node("softmax", [3])]
    plan = Plan([rows, n], nodes, [Param("s", [1])], "mse", 4, 4)
    x = RNG.normal(size=(1, rows, n)).astype(np.float32)
    a = np.maximum(x[0].astype(np.float64) ** 3, 0)
    e = np.exp(a - a.max(1, keepdims=True))
    trainer = Trainer(plan, batch=1)
    want = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(trainer.predict(np.ones(1), x)[0], want, rtol=2e-3, atol=1e-6)
    y = want[None].astype(np.float32)
    y[0, :, 0] += 1
    loss = trainer.evaluate(np.ones(1), x, y).loss
    assert loss == pytest.approx(1 / n, rel=1e-3)


# Work


def test_flops_are_counted_from_the_plan_alone():
    mlp = Plan(
        [784],
        [Node("dense", [0], [0, 1]), Node("relu", [1]), Node("dense", [2], [2, 3])],
        [Param("w", [784, 200]), Param("b", [200]), Param("v", [200, 10]), Param("c", [10])],
        "cross_entropy", 3, 3,
    )  # fmt: skip
    assert forward_flops(mlp) == 2 * (784 * 200 + 200 * 10) + 200
    assert forward_flops(LONG["lstm"]) > 2 * 6000 * H * 4 * H
