"""Nodes that the node before them computes (fuse.c): the same numbers as node by node, and where it may not be done."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import close

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

RELU, RELU6, CLIP = ("relu", []), ("clip", [0.0, 6.0]), ("clip", [-0.4, 0.3])


def trainers(plan, batch=16):
    """One with its nodes fused, and its reference."""
    pair = Trainer(plan, batch=batch), Trainer(plan, batch=batch)
    pair[1]._held = _core.Net(plan, batch, None, apart=True)
    return pair


def same(plan, *, samples=16, batch=16, seed=0, tolerance=1e-6):
    rng = np.random.default_rng(seed)
    params = rng.normal(0.3, 0.5, plan.num_params).astype(np.float32)
    for param, end in zip(plan.params, np.cumsum([p.size for p in plan.params]), strict=True):
        if param.name.startswith("var"):
            params[end - param.size : end] = rng.uniform(0.5, 2, param.size)
    x = rng.normal(0, 1, (samples, *plan.input_shape)).astype(np.float32)
    fused, apart = trainers(plan, batch)
    shape = fused.predict(params, x).shape
    y = rng.normal(0, 1, shape).astype(np.float32)
    close(fused.predict(params, x), apart.predict(params, x), tolerance)
    close(fused.gradient(params, x, y), apart.gradient(params, x, y), 10 * tolerance)
    assert fused.evaluate(params, x, y).loss == pytest.approx(apart.evaluate(params, x, y).loss, rel=1e-5)
    for options in ({"momentum": 0.9}, {"optimizer": "adam"}, {"clip_norm": 1.0}):
        fits = [t.fit(params, x, y, epochs=2, batch_size=samples, lr=0.01, **options).delta for t in (fused, apart)]
        close(*fits, 1e-3)
    return fused


def normed(shape, activation, *, tail=None, output=None):
    c = shape[-1]
    op, floats = activation
    params = [*(Param(name, [c, c]) for name in "wv"), *(Param(name, [c]) for name in ("gamma", "beta"))]
    params += [Param("mean", [c], False), Param("var", [c], False)]
    nodes = [Node("dense", [0], [0]), Node("batch_norm", [1], [2, 3, 4, 5], [], [1e-3, 0.9])]
    nodes += [Node(op, [2], [], [], floats), tail or Node("dense", [3], [1])]
    return Plan(shape, nodes, params, "mse", 4, output or 4)


@pytest.mark.parametrize("activation", [RELU, RELU6, CLIP], ids=["relu", "relu6", "clip"])
@pytest.mark.parametrize("shape", [[1], [3], [16], [17], [5, 3], [4, 4, 6], [3, 5, 16], [1, 2, 130]], ids=str)
def test_batch_norm_with_its_activation(shape, activation):
    same(normed(shape, activation), tolerance=1e-5)


def test_relu_of_a_value_that_another_node_reads_stays_a_node():
    same(normed([6], RELU, tail=Node("add", [2, 3])))


def test_a_value_before_the_activation_can_be_the_output():
    plan = normed([6], RELU, output=2)
    fused, apart = trainers(plan)
    rng = np.random.default_rng(0)
    params, x = rng.uniform(0.1, 1, plan.num_params).astype(np.float32), rng.normal(0, 1, (16, 6)).astype(np.float32)
    assert fused.predict(params, x).min() < 0
    assert np.array_equal(fused.predict(params, x), apart.predict(params, x))
    close(fused.gradient(params, x, x), apart.gradient(params, x, x), 1e-5)


def residual(shape, activation, *, tail=None, output=None, inputs=(2, 1)):
    """relu or clip of a sum of two values, the first of them read by the sum alone."""
    c = shape[-1]
    op, floats = activation
    params = [*(Param(name, [c, c]) for name in "uvw"), Param("bias", [c])]
    nodes = [Node("dense", [0], [0, 3]), Node("dense", [1], [1]), Node("add", list(inputs))]
    nodes += [Node(op, [3], [], [], floats), tail or Node("dense", [4], [2])]
    return Plan(shape, nodes, params, "mse", 5, output or 5)


@pytest.mark.parametrize("inputs", [(2, 1), (1, 2)], ids=["in place", "apart"])
@pytest.mark.parametrize("activation", [RELU, RELU6, CLIP], ids=["relu", "relu6", "clip"])
@pytest.mark.parametrize("shape", [[1], [3], [17], [5, 3], [3, 5, 16]], ids=str)
def test_a_sum_with_its_activation(shape, activation, inputs):
    plan = residual(shape, activation, inputs=inputs)
    fused, apart = trainers(plan)
    rng = np.random.default_rng(1)
    params = rng.normal(0, 0.5, plan.num_params).astype(np.float32)
    x, y = (rng.normal(0, 1, (16, *shape)).astype(np.float32) for _ in range(2))
    assert np.array_equal(fused.predict(params, x), apart.predict(params, x))
    assert np.array_equal(fused.gradient(params, x, y), apart.gradient(params, x, y))


def test_a_sum_whose_inputs_are_one_value_or_have_no_gradient():
    c = 6
    for inputs in ([1, 1], [1, 0], [0, 1]):
        nodes = [Node("dense", [0], [0]), Node("add", inputs), Node("relu", [2]), Node("dense", [3], [1])]
        same(Plan([c], nodes, [Param("w", [c, c]), Param("v", [c, c])], "mse", 4, 4), tolerance=1e-5)


def test_a_sum_under_broadcasting_or_with_a_param_stays_a_node():
    params = [Param("w", [4, 4]), Param("b", [4])]
    for add in (Node("add", [1], [1]), Node("add", [2, 1])):
        nodes = [Node("dense", [0], [0]), Node("mean", [1], [], [0]), add, Node("relu", [3]), Node("dense", [4], [0])]
        given = params if add.params else params[:1]
        same(Plan([3, 4], nodes, given, "mse", 5, 5), tolerance=1e-5)


def test_a_sum_that_keeps_bits_stays_a_node():
    """What follows is frozen, so that relu keeps a bit an element and no number."""
    c = 64
    params = [Param("w", [c, c]), Param("v", [c, c]), Param("frozen", [c, c], False)]
    nodes = [Node("dense", [0], [0]), Node("dense", [1], [1]), Node("add", [2, 1]), Node("relu", [3])]
    plan = Plan([c], [*nodes, Node("dense", [4], [2])], params, "mse", 5, 5)
    fused, apart = trainers(plan)
    assert fused._net.arena_bytes == apart._net.arena_bytes
    same(plan, tolerance=1e-5)


@pytest.mark.parametrize("activation", [RELU, RELU6], ids=["relu", "relu6"])
def test_sums_under_a_limit_of_memory_and_with_threads(activation):
    op, floats = activation
    shape, params, nodes, value = [8, 8, 32], [], [], 0
    for _ in range(4):
        start, more = value, [Param(f"w{len(params) + i}", [32, 32]) for i in range(2)]
        params += more
        nodes += [Node("dense", [start], [len(params) - 2]), Node("relu", [len(nodes) + 1])]
        nodes += [Node("dense", [len(nodes)], [len(params) - 1]), Node("add", [len(nodes) + 1, start])]
        nodes += [Node(op, [len(nodes)], [], [], floats)]
        value = len(nodes)
    plan = Plan(shape, nodes, params, "mse", value, value)
    rng = np.random.default_rng(2)
    start = rng.normal(0, 0.2, plan.num_params).astype(np.float32)
    x, y = (rng.normal(0, 1, (24, *shape)).astype(np.float32) for _ in range(2))
    whole, apart = trainers(plan, 24)
    expected = apart.fit(start, x, y, batch_size=24, lr=0.01, momentum=0.9).delta
    least = _core.plan_needs(plan, 24)[1]
    assert least < whole.arena_bytes
    for trainer in (
        whole,
        Trainer(plan, batch=24, threads=2),
        Trainer(plan, batch=24, max_arena_bytes=least, threads=2),
    ):
        assert np.array_equal(trainer.fit(start, x, y, batch_size=24, lr=0.01, momentum=0.9).delta, expected)
