"""The op `mask`: a triangle or a param keeps elements, the others are one number and have no gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError


def masked_by_triangle(shape, upper, k, fill=-3.0):
    nodes = [Node("dense", [0], [0, 1]), Node("mask", [1], [], [upper, k], [fill]), Node("tanh", [2])]
    return Plan(shape, nodes, [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]])], "mse", 3, 3)


def masked_by_param(shape, mask, fill=0.25):
    nodes = [Node("dense", [0], [0, 1]), Node("mask", [1], [2], [], [fill]), Node("tanh", [2])]
    params = [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]]), Param("m", mask, False)]
    return Plan(shape, nodes, params, "mse", 3, 3)


@pytest.mark.parametrize("shape", [[5, 5], [3, 7], [7, 3], [2, 4, 17], [1, 1]], ids=str)
@pytest.mark.parametrize("k", [0, 1, -1, 3, -9, 40])
@pytest.mark.parametrize("upper", [0, 1])
def test_triangles(upper, k, shape):
    plan = masked_by_triangle(shape, upper, k)
    check(plan, FORWARD)
    if k == 0:
        fused_equals_buffered(plan)


@pytest.mark.parametrize(
    ("shape", "mask"),
    [([5], [5]), ([3, 5], [3, 5]), ([2, 3, 5], [3, 1]), ([2, 3, 5], [1, 5]), ([2, 3, 5], [2, 1, 1]), ([4, 33], [33]),
     ([2, 3], []), ([2, 2, 3, 17], [3, 17])],
    ids=str,
)  # fmt: skip
def test_params(shape, mask):
    plan, rng = masked_by_param(shape, mask), np.random.default_rng(1)
    size = plan.params[2].size
    params = np.concatenate([rng.normal(0, 0.5, plan.num_params - size), rng.integers(0, 2, size)])
    check(plan, FORWARD, params=params)


def test_attention_that_sees_the_past_alone():
    """Scores, a causal mask as exporters fill it in, softmax: gradients are finite and right."""
    nodes = [
        Node("dense", [0], [0]), Node("dense", [0], [1]), Node("matmul", [1, 2], [], [1]),
        Node("mask", [3], [], [0, 0], [-1e30]), Node("softmax", [4]), Node("matmul", [5, 0], [], [0]),
    ]  # fmt: skip
    plan = Plan([6, 4], nodes, [Param("q", [4, 4]), Param("k", [4, 4])], "mse", 6, 6)
    check(plan, FORWARD)
    net, rng = _core.Net(plan, 2), np.random.default_rng(0)
    params, x = rng.normal(size=32).astype(np.float32), rng.normal(size=48).astype(np.float32)
    out, changed = np.empty(48, np.float32), np.empty(48, np.float32)
    net.predict(params, x, out)
    x[20:24] += 9  # the last place of the first sample
    net.predict(params, x, changed)
    assert (out[:20] == changed[:20]).all() and (out[20:24] != changed[20:24]).any()


def test_what_is_not_kept_may_be_anything():
    plan = masked_by_triangle([2, 2], 0, 0, fill=7.0)
    net, out = _core.Net(plan, 1), np.empty(4, np.float32)
    net.predict(np.float32([1, 0, 0, 1, 0, 0]), np.float32([1, 1e38, 3, 4]), out)
    assert out[1] == np.float32(math.tanh(7))


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("mask", [0], [], [0, 0]), "wrong number"),
        (Node("mask", [0], [], [], [0.0]), "a param, or a triangle"),
        (Node("mask", [0], [], [0], [0.0]), "a param, or a triangle"),
        (Node("mask", [0], [], [2, 0], [0.0]), "upper 0 or 1"),
        (Node("mask", [0], [], [0, 2**40], [0.0]), "within 2"),
        (Node("mask", [0], [0], [0, 0], [0.0]), "not both"),
        (Node("mask", [0], [1], [], [0.0]), "broadcasts"),
        (Node("mask", [0], [2], [], [0.0]), "broadcasts"),
        (Node("mask", [0], [0], [], [1e300]), "finite"),
        (Node("mask", [0, 0], [], [0, 0], [0.0]), "wrong number"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    params = [Param("m", [2, 3], False), Param("n", [3, 3], False), Param("o", [5, 2, 3], False)]
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [node], params, "mse", 1, 1), 1)
