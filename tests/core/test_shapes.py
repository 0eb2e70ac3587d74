"""mean, reshape, transpose, pad, slice, concat: against NumPy, one axis and four, and malformed plans refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered, one_op
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError


def pad(node, x):
    axes = x.ndim - 1
    widths = zip(node.ints[:axes], node.ints[axes:], strict=True)
    return np.pad(x, [(0, 0), *widths], constant_values=node.floats[0])


FORWARDS = {
    "mean": lambda node, x: x.mean(tuple(axis + 1 for axis in node.ints)),
    "reshape": lambda node, x: x.reshape(len(x), *node.ints),
    "transpose": lambda node, x: x.transpose(0, *(axis + 1 for axis in node.ints)),
    "pad": pad,
    "slice": lambda node, x: x.take(range(node.ints[1], node.ints[1] + node.ints[2]), node.ints[0] + 1),
    "concat": lambda node, *x: np.concatenate(x, node.ints[0] + 1),
}


def verify(op, shape, ints, floats=()):
    plan = one_op(op, shape, ints=list(ints), floats=list(floats))
    check(plan, FORWARDS)
    return plan


@pytest.mark.parametrize("shape", [[1], [17], [3, 5], [8, 1], [2, 3, 5], [1, 4, 33], [2, 3, 2, 5]], ids=str)
def test_mean_over_every_choice_of_axes(shape):
    for count in range(1, len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            fused_equals_buffered(verify("mean", shape, axes))


@pytest.mark.parametrize(
    ("shape", "to"), [([6], [2, 3]), ([2, 3, 4], [4, 6]), ([2, 3], [6]), ([1], []), ([5], [1, 5, 1, 1])], ids=str
)
def test_reshape(shape, to):
    verify("reshape", shape, to)


def test_a_scalar_becomes_an_axis():
    plan = Plan([3], [Node("dense", [0], [0]), Node("reshape", [1], [], []), Node("reshape", [2], [], [1])],
                [Param("w", [3, 1])], "mse", 3, 2)  # fmt: skip
    check(plan, FORWARDS)
    assert _core.Net(plan).shapes == [(3,), (1,), (), (1,)]


@pytest.mark.parametrize("shape", [[5], [3, 17], [1, 18], [2, 3, 5], [3, 1, 4], [2, 3, 4, 5], [19, 1, 2, 17]], ids=str)
def test_every_transpose(shape):
    for order in itertools.permutations(range(len(shape))):
        verify("transpose", shape, order)


@pytest.mark.parametrize(
    ("shape", "before", "after", "value"),
    [
        ([3], [2], [1], 0.0), ([1], [0], [0], 1.0), ([2, 3], [0, 1], [2, 0], -1.5),
        ([2, 3, 4], [1, 0, 2], [0, 3, 1], 0.0),
        ([2, 1, 3, 2], [1, 2, 0, 1], [0, 1, 2, 1], 0.5), ([4, 17], [1, 0], [1, 0], 0.0),
    ],
)  # fmt: skip
def test_pad(shape, before, after, value):
    verify("pad", shape, [*before, *after], [value])


@pytest.mark.parametrize(
    ("shape", "ints"),
    [([5], [0, 1, 3]), ([5], [0, 0, 5]), ([1], [0, 0, 1]), ([4, 3], [0, 3, 1]), ([4, 3], [1, 1, 2]),
     ([3, 4, 17], [1, 1, 2]), ([2, 3, 4, 5], [3, 2, 2]), ([2, 3, 4, 5], [0, 1, 1])],
    ids=str,
)  # fmt: skip
def test_slice(shape, ints):
    verify("slice", shape, ints)


def joined(shape, axis, sizes):
    """Slices of one value, of different lengths, put behind one another; the first of them twice."""
    starts = [int(start) for start in np.minimum(np.arange(len(sizes)), shape[axis] - np.array(sizes))]
    nodes = [Node("dense", [0], [0])]
    nodes += [Node("slice", [1], [], [axis, start, size]) for start, size in zip(starts, sizes, strict=True)]
    nodes.append(Node("concat", [*range(2, 2 + len(sizes)), 2], [], [axis]))
    return Plan(shape, nodes, [Param("w", [shape[-1]] * 2)], "mse", len(nodes), len(nodes))


@pytest.mark.parametrize(
    ("shape", "axis", "sizes"),
    [([5], 0, [2, 3]), ([1], 0, [1, 1]), ([3, 5], 0, [1, 3]), ([3, 5], 1, [4, 1, 2]), ([2, 3, 17], 2, [16, 1]),
     ([4, 2, 3], 1, [1, 2]), ([2, 2, 3, 4], 2, [3, 1]), ([9], 0, [1, 2, 3, 4, 5, 6, 7])],
    ids=str,
)  # fmt: skip
def test_concat(shape, axis, sizes):
    plan = joined(shape, axis, sizes)
    check(plan, FORWARDS)
    fused_equals_buffered(plan)


def test_concat_with_the_input_itself():
    plan = Plan([3], [Node("dense", [0], [0]), Node("concat", [0, 1, 0], [], [0])], [Param("w", [3, 2])], "mse", 2, 2)
    check(plan, FORWARDS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_chains_of_any_shapes(data):
    """Arrangements upon arrangements: aliases of aliases, steps that merge and steps that don't."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    nodes, now = [Node("dense", [0], [0])], list(shape)
    for _ in range(data.draw(st.integers(1, 5))):
        axis = data.draw(st.integers(0, len(now) - 1))
        op = data.draw(st.sampled_from(["transpose", "pad", "slice", "reshape", "concat"]))
        ints, floats, inputs = [], [], [len(nodes)]
        if op == "transpose":
            ints = data.draw(st.permutations(range(len(now))))
            now = [now[i] for i in ints]
        elif op == "pad":
            ints, floats = data.draw(st.lists(st.integers(0, 2), min_size=2 * len(now), max_size=2 * len(now))), [0.25]
            now = [size + ints[i] + ints[i + len(now)] for i, size in enumerate(now)]
        elif op == "slice":
            start = data.draw(st.integers(0, now[axis] - 1))
            ints = [axis, start, data.draw(st.integers(1, now[axis] - start))]
            now[axis] = ints[2]
        elif op == "reshape":
            now = [int(np.prod(now[:axis])), int(np.prod(now[axis:]))]
            ints = list(now)
        else:
            ints, inputs = [axis], inputs * 2
            now[axis] *= 2
        if np.prod(now) > 2000:
            return
        nodes.append(Node(op, inputs, [], list(ints), floats))
    check(Plan(shape, nodes, [Param("w", [shape[-1]] * 2)], "mse", len(nodes), len(nodes)), FORWARDS)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("mean", [0]), "needs an axis"),
        (Node("mean", [0], [], [2]), "ascending axes"),
        (Node("mean", [0], [], [-1]), "ascending axes"),
        (Node("mean", [0], [], [1, 0]), "ascending axes"),
        (Node("mean", [0], [], [1, 1]), "ascending axes"),
        (Node("reshape", [0], [], [3, 3]), "as many elements"),
        (Node("reshape", [0], [], [-2, -3]), "as many elements"),
        (Node("reshape", [0], [], [2**62, 2**62]), "as many elements"),
        (Node("reshape", [0], [], [6, 1, 1, 1, 1, 1, 1]), "more than 6 axes"),
        (Node("transpose", [0], [], [0]), "permutation"),
        (Node("transpose", [0], [], [0, 0]), "permutation"),
        (Node("transpose", [0], [], [0, -1]), "permutation"),
        (Node("transpose", [0], [], [0, 2**40]), "permutation"),
        (Node("pad", [0], [], [1, 1], [0.0]), "two pads for each axis"),
        (Node("pad", [0], [], [1, 1, 1, -1], [0.0]), "pads of 0"),
        (Node("pad", [0], [], [1, 1, 1, 2**62], [0.0]), "pads of 0"),
        (Node("pad", [0], [], [2**30] * 4, [0.0]), "too large"),
        (Node("pad", [0], [], [0] * 4), "wrong number"),
        (Node("slice", [0], [], [2, 0, 1]), "an axis of its input"),
        (Node("slice", [0], [], [-1, 0, 1]), "an axis of its input"),
        (Node("slice", [0], [], [0, 2, 1]), "beyond"),
        (Node("slice", [0], [], [0, 1, 2]), "beyond"),
        (Node("slice", [0], [], [0, -1, 1]), "beyond"),
        (Node("slice", [0], [], [0, 0, 0]), "beyond"),
        (Node("slice", [0], [], [0, 2**62, 2**62]), "beyond"),
        (Node("slice", [0], [], [0, 1, 2**63 - 1]), "beyond"),
        (Node("slice", [0], [], [0, 0]), "wrong number"),
        (Node("concat", [0], [], [0]), "wrong number"),
        (Node("concat", [0, 0], [], [2]), "an axis of its inputs"),
        (Node("concat", [0, 1], [], [0]), "as many axes"),
        (Node("concat", [0, 2], [], [0]), "along its axis only"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    before = [Node("reshape", [0], [], [6]), Node("transpose", [0], [], [1, 0])]
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [*before, node], [], "mse", 3, 3), 1)
