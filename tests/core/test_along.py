"""resize, extend, stride, expand and repeat against float64 NumPy: values, every gradient, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, one_op
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

SHAPE = [4, 3, 5]


@pytest.mark.parametrize("coordinates", range(6))
@pytest.mark.parametrize(("axis", "size", "scale"), [(0, 8, 2.0), (1, 7, 2.5), (0, 3, 0.75), (2, 1, 0.2), (1, 1, 0.5)])
def test_resize(axis, size, scale, coordinates):
    for mode in (0, 1):
        for rounding in range(4 if mode == 0 else 1):
            plan = one_op("resize", SHAPE, ints=[axis, size, mode, coordinates, rounding], floats=[scale])
            check(plan, FORWARD, samples=2)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 1), st.integers(0, 5), st.integers(0, 3), st.data())
def test_any_resize(length, size, mode, coordinates, rounding, data):
    scale = float(np.float32(data.draw(st.floats(0.1, 8) | st.just(size / length))))
    ints = [0, size, mode, coordinates, rounding]
    check(one_op("resize", [length, 2], ints=ints, floats=[scale]), FORWARD, samples=2)


@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize(("axis", "before", "after"), [(0, 3, 2), (1, 0, 2), (2, 4, 0), (1, 0, 0)])
def test_extend(axis, before, after, mode):
    check(one_op("extend", SHAPE, ints=[axis, before, after, mode]), FORWARD)


@pytest.mark.parametrize(
    ("axis", "start", "step", "size"), [(0, 0, 2, 2), (0, 3, -1, 4), (2, 4, -2, 3), (1, 1, 0, 4), (2, 1, 3, 2)]
)
def test_stride(axis, start, step, size):
    check(one_op("stride", SHAPE, ints=[axis, start, step, size]), FORWARD)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [([1, 3], [4, 3]), ([3, 1], [3, 5]), ([1, 3, 1], [2, 3, 19]), ([2, 1, 3], [2, 4, 3]), ([1], [7]), ([2, 3], [2, 3])],
)
def test_expand(shape, sizes):
    check(one_op("expand", shape, ints=sizes), FORWARD)


@pytest.mark.parametrize("shape", [[3], [2, 5], [2, 1, 3], [1, 2, 1, 2, 3, 1]])
def test_repeat(shape):
    """Joined to an activation of its shape, as a class token is."""
    params = [Param("w", [shape[-1]] * 2), Param("token", shape)]
    for source in (0, 1):  # what is only counted gets no gradient
        nodes = [Node("dense", [0], [0]), Node("repeat", [source], [1]), Node("concat", [1, 2], [], [0])]
        check(Plan(shape, nodes, params, "mse", 3, 3), FORWARD)


@pytest.mark.parametrize("perm", [(0, 3, 1, 4, 2), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
def test_five_axes_are_permuted(perm):
    check(one_op("transpose", [2, 3, 2, 4, 3], ints=list(perm)), FORWARD, samples=2)


@pytest.mark.parametrize(
    ("op", "ints", "floats", "says"),
    [
        ("resize", [3, 4, 0, 0, 0], [2.0], "an axis of its input"),
        ("resize", [-1, 4, 0, 0, 0], [2.0], "an axis of its input"),
        ("resize", [0, 0, 0, 0, 0], [2.0], "not 1 to 2"),
        ("resize", [0, 2**25, 0, 0, 0], [2.0], "not 1 to 2"),
        ("resize", [0, 4, 2, 0, 0], [2.0], "mode 0 or 1"),
        ("resize", [0, 4, 0, 6, 0], [2.0], "coordinates 0 to 5"),
        ("resize", [0, 4, 0, 0, 4], [2.0], "rounding 0 to 3"),
        ("resize", [0, 4, 0, 0, 0], [0.0], "a scale"),
        ("resize", [0, 4, 0, 0, 0], [float("nan")], "a scale"),
        ("extend", [0, 4, 0, 0], [], "shorter than the axis"),
        ("extend", [0, 5, 0, 2], [], "shorter than the axis"),
        ("extend", [0, -1, 0, 1], [], "pads of 0"),
        ("extend", [0, 0, 2**62, 1], [], "pads of 0"),
        ("extend", [0, 0, 0, 3], [], "mode 0 to 2"),
        ("extend", [9, 0, 0, 0], [], "an axis"),
        ("stride", [0, 3, 1, 2], [], "beyond"),
        ("stride", [0, 0, -1, 2], [], "beyond"),
        ("stride", [0, 0, 2**62, 2], [], "beyond"),
        ("stride", [0, 4, 0, 1], [], "beyond"),
        ("expand", [4, 3], [], "a size for each axis"),
        ("expand", [4, 6, 5], [], "an axis of one"),
    ],
)
def test_a_wrong_plan_is_refused(op, ints, floats, says):
    plan = one_op(op, SHAPE, ints=ints, floats=floats)
    with pytest.raises(ModelError, match=rf"\({op}\): .*{says}"):
        _core.Net(plan)


def test_what_is_too_large_is_refused():
    with pytest.raises(ModelError, match="empty or too large"):
        _core.Net(one_op("expand", [1, 1, 3], ints=[2**20, 2**20, 3]))
    with pytest.raises(ModelError, match="too large"):
        _core.Net(one_op("resize", [2**12, 2**12, 1], ints=[0, 2**24, 0, 0, 0], floats=[4096.0]))
