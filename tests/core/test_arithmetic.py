"""add, sub, mul, div: two values or a value and a param, every kind of broadcasting, in either order."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from gradcheck import check, close, fused_equals_buffered
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

OPS = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "max": np.maximum,
       "min": np.minimum}  # fmt: skip


def aligned(a, axes):
    """(samples, *shape) with ones behind the samples' axis until it has `axes` axes: what right-alignment means."""
    return a.reshape(len(a), *[1] * (axes - a.ndim), *a.shape[1:])


def reference(op):
    def forward(node, x, w):
        if len(node.inputs) == 2:
            axes = max(x.ndim, w.ndim)
            x, w = aligned(x, axes), aligned(w, axes)
        return op(w, x) if node.ints == [1] else op(x, w)

    return forward


FORWARDS = {name: reference(op) for name, op in OPS.items()} | {
    "reshape": lambda node, x: x.reshape(len(x), *node.ints),
    "slice": lambda node, x: x.take(range(node.ints[1], node.ints[1] + node.ints[2]), node.ints[0] + 1),
}


def two_values(op, left, right, ints):
    """Both operands are sigmoids of dense layers of the input, cut to shape: far from 0, and with gradients."""
    sizes = int(np.prod(left)), int(np.prod(right))
    nodes = [
        Node("dense", [0], [0, 1]), Node("sigmoid", [1]),
        Node("slice", [2], [], [0, 0, sizes[0]]), Node("reshape", [3], [], left),
        Node("slice", [2], [], [0, sizes[0], sizes[1]]), Node("reshape", [5], [], right),
        Node(op, [4, 6], [], ints),
    ]  # fmt: skip
    params = [Param("w", [3, sum(sizes)]), Param("b", [sum(sizes)])]
    return Plan([3], nodes, params, "mse", 7, 7)


def with_param(op, shape, param, ints):
    nodes = [Node("dense", [0], [0, 1]), Node("sigmoid", [1]), Node(op, [2], [2], ints)]
    return Plan(shape, nodes, [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]]), Param("p", param)], "mse", 3, 3)


SHAPES = [
    ([5], [5]), ([17], [17]), ([2, 3, 5], [2, 3, 5]), ([2, 3, 5], [5]), ([5], [2, 3, 5]), ([2, 3, 5], [1, 1, 5]),
    ([2, 3, 1], [2, 3, 5]), ([2, 1, 5], [1, 3, 1]), ([2, 2, 2, 2], [2, 1]), ([2, 3], []), ([], [2, 3]), ([], []),
    ([1], [1]), ([1, 3, 1], [4, 1, 2]), ([2, 1, 17], [2, 3, 17]), ([3, 1], [3, 33]),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
@pytest.mark.parametrize("ints", [[0], [1], []], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_two_values(op, ints, left, right):
    check(two_values(op, left, right, ints), FORWARDS)


def away_from_zero(plan, seed=0):
    params = np.random.default_rng(seed).normal(0, 0.5, plan.num_params)
    size = plan.params[-1].size
    params[-size:] = np.sign(params[-size:]) + params[-size:] * 0.5
    return params


@pytest.mark.parametrize(
    ("shape", "param"),
    [([5], [5]), ([2, 3, 5], [5]), ([2, 3, 5], [3, 1]), ([2, 3, 5], [2, 1, 1]), ([2, 3], [1]), ([2, 3], []),
     ([2, 3, 17], [2, 3, 17]), ([2, 3, 33], [1, 1, 33]), ([7, 1], [7, 1])],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("ints", [[0], [1]], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_a_value_and_a_param(op, ints, shape, param):
    plan = with_param(op, shape, param, ints)
    check(plan, FORWARDS, params=away_from_zero(plan))
    if op != "div":
        fused_equals_buffered(plan)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shapes_that_broadcast(data):
    full = data.draw(st.lists(st.integers(1, 4), max_size=4))
    operands = []
    for _ in range(2):
        cut = full[data.draw(st.integers(0, len(full))) :]
        operands.append([data.draw(st.sampled_from([1, size])) for size in cut])
    check(two_values(data.draw(st.sampled_from(list(OPS))), *operands, [data.draw(st.integers(0, 1))]), FORWARDS)


def test_a_value_against_itself():
    for op in ("add", "sub", "mul", "max", "min"):
        plan = Plan([4], [Node("dense", [0], [0]), Node(op, [1, 1], [], [0])], [Param("w", [4, 3])], "mse", 2, 2)
        check(plan, FORWARDS)


def test_the_input_plus_a_param_trains_the_param():
    plan = Plan([6], [Node("add", [0], [0], [0])], [Param("w", [6])], "mse", 1, 1)
    check(plan, FORWARDS)


@pytest.mark.parametrize("operands", [(1, 2), (2, 1), (2, 2)])
def test_residuals(operands):
    """A sum may take over its first operand's memory, but not from another reader: here value 1 has two."""
    nodes = [Node("dense", [0], [0]), Node("dense", [1], [1]), Node("add", list(operands), [], [0])]
    plan = Plan([5], [*nodes, Node("dense", [3], [2])], [Param(f"w{i}", [5, 5]) for i in range(3)], "mse", 4, 4)
    check(plan, FORWARDS)
    fused_equals_buffered(plan)


def test_division_by_zero_is_not_hidden():
    net = _core.Net(Plan([3], [Node("div", [0], [0], [0])], [Param("w", [3])], "mse", 1, 1), 1)
    out = np.empty(3, np.float32)
    net.predict(np.zeros(3, np.float32), np.float32([1, -1, 0]), out)
    assert np.isinf(out[:2]).all() and np.isnan(out[2])


def test_large_equal_shapes_agree_with_numpy():
    rng = np.random.default_rng(1)
    x, w = rng.normal(0, 1, (2, 100, 1000)).astype(np.float32)
    for op, exact in OPS.items():
        net = _core.Net(Plan([1000], [Node(op, [0], [0], [0])], [Param("w", [1000])], "mse", 1, 1), 100)
        out = np.empty((100, 1000), np.float32)
        net.predict(w[0], x.ravel(), out.reshape(-1))
        close(out, exact(x, w[0]), 1e-6)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("add", [0], [], [0]), "two values, or one and a param"),
        (Node("add", [0, 0], [0], [0]), "two values, or one and a param"),
        (Node("add", [0, 1], [], [0]), "shapes that broadcast"),
        (Node("sub", [0, 0], [], [2]), "0 or 1 for its order"),
        (Node("sub", [0, 0], [], [0, 0]), "0 or 1 for its order"),
        (Node("mul", [0], [1], [0]), "broadcasts to its input's shape"),
        (Node("div", [0], [2], [0]), "shapes that broadcast"),
        (Node("mul", [2, 3], [], [0]), "too large"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    big = 2**20
    nodes = [
        Node("slice", [0], [], [1, 0, 2]),
        Node("pad", [0], [], [0, 0, big, 0], [0.0]),
        Node("reshape", [2], [], [1, 3 * (2 + big)] if node.inputs != [2, 3] else [3 * (2 + big), 1]),
    ]
    if node.inputs == [2, 3]:
        nodes = [nodes[1], Node("slice", [1], [], [1, 0, 1]), Node("reshape", [1], [], [1, 1, 3 * (2 + big)])]
        nodes += [Node("reshape", [1], [], [3 * (2 + big), 1])]
        node = Node(node.op, [3, 4], [], [0])
    params = [Param("p", [2, 3]), Param("q", [5, 2, 3]), Param("r", [2])]
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [*nodes, node], params, "mse", len(nodes) + 1, len(nodes) + 1), 1)


def test_equal_numbers_share_the_gradient_of_an_extreme_and_nan_passes():
    for op in ("max", "min"):
        plan = Plan([1], [Node("add", [0], [0]), Node("add", [0], [1]), Node(op, [1, 2])],
                    [Param("a", [1]), Param("b", [1])], "l1", 3, 3)  # fmt: skip
        net, gradient = _core.Net(plan, 1), np.empty(2, np.float32)
        net.gradient(np.zeros(2, np.float32), np.zeros(1, np.float32), np.float32([-9]), gradient)
        assert gradient.tolist() == [0.5, 0.5]
        out = np.empty(1, np.float32)
        for params in ([np.nan, 0], [0, np.nan]):
            net.predict(np.float32(params), np.zeros(1, np.float32), out)
            assert np.isnan(out[0])
