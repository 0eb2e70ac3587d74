"""Extremes, norms and log-sum-exp along axes; and select, which chooses between two values."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

OPS = ["reduce_max", "reduce_min", "norm", "log_sum_exp"]
SHAPES = [([5], [0]), ([17], [0]),
          ([3, 5], [0]), ([3, 5], [1]), ([3, 5], [0, 1]), ([2, 3, 4], [1]), ([2, 3, 4], [0, 2]),
          ([2, 3, 2, 5], [1, 3]), ([1, 1], [0]), ([4, 33], [1])]  # fmt: skip


def of_dense(shape, node):
    nodes = [Node("dense", [0], [0, 1]), node, Node("sigmoid", [2])]
    return Plan(shape, nodes, [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]])], "mse", 3, 3)


@pytest.mark.parametrize(("shape", "axes"), SHAPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_gradients(op, shape, axes):
    plan = of_dense(shape, Node(op, [1], [], axes))
    check(plan, FORWARD)
    fused_equals_buffered(plan)


def gradient_of(op, x):
    plan = Plan([len(x)], [Node("add", [0], [0]), Node(op, [1], [], [0])], [Param("b", [len(x)])], "l1", 2, 2)
    net, gradient = _core.Net(plan, 1), np.empty(len(x), np.float32)
    net.gradient(np.float32(x), np.zeros(len(x), np.float32), np.float32([-1e6]), gradient)
    return gradient.tolist()


def test_equal_extremes_share_and_a_norm_of_nothing_has_no_gradient():
    assert gradient_of("reduce_max", [1, 3, 3, 0]) == [0, 0.5, 0.5, 0]
    assert gradient_of("reduce_min", [2, 2, 2, 2]) == [0.25] * 4
    assert gradient_of("norm", [0, 0, 0]) == [0, 0, 0]


def test_large_numbers_do_not_overflow_and_nan_passes():
    for op in OPS:
        net = _core.Net(Plan([3], [Node(op, [0], [], [0])], [], "mse", 1, 1), 1)
        out = np.empty(1, np.float32)
        net.predict(np.empty(0, np.float32), np.float32([0, np.nan, 1]), out)
        assert np.isnan(out[0])
    net.predict(np.empty(0, np.float32), np.float32([500, 500, 500]), out)
    assert out[0] == pytest.approx(500 + np.log(3))


@pytest.mark.parametrize("shape", [[5], [2, 3, 17]], ids=str)
def test_select(shape):
    """The condition is the input, so that a small step of the params does not change it."""
    nodes = [Node("dense", [0], [0, 1]), Node("tanh", [1]), Node("select", [0, 1, 2]), Node("sigmoid", [3])]
    plan = Plan(shape, nodes, [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]])], "mse", 4, 4)
    check(plan, FORWARD)
    fused_equals_buffered(plan)


def test_condition_of_a_select_has_no_gradient():
    nodes = [Node("add", [0], [0]), Node("select", [1, 0, 0])]
    net, gradient = _core.Net(Plan([2], nodes, [Param("b", [2])], "mse", 2, 2), 1), np.ones(2, np.float32)
    net.gradient(np.ones(2, np.float32), np.ones(2, np.float32), np.zeros(2, np.float32), gradient)
    assert gradient.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("norm", [0]), "needs an axis"),
        (Node("norm", [0], [], [2]), "ascending axes"),
        (Node("reduce_max", [0], [], [1, 0]), "ascending axes"),
        (Node("log_sum_exp", [0], [0], [0]), "wrong number"),
        (Node("select", [0, 0]), "wrong number"),
        (Node("select", [0, 0, 1]), "one shape"),
        (Node("select", [0, 1, 0]), "one shape"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [Node("flatten", [0]), node], [Param("w", [1])], "mse", 2, 2), 1)
