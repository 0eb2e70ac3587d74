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
