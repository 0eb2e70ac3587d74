"""maxpool and avgpool against float64 NumPy: values, gradients, every attribute, ties, NaN, hostile plans."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check
from hypothesis import given, settings
from hypothesis import strategies as st
from windows import FORWARDS, pool_plan

from edgefl import _core
from edgefl.core.plan import Node, Plan
from edgefl.errors import ModelError

POOLS = {
    "2x2": ((6, 4, 3), (2, 2), dict(stride=(2, 2))),
    "2x2, a row and a column left over": ((5, 7, 2), (2, 2), dict(stride=(2, 2))),
    "overlapping": ((7, 6, 2), (3, 3), dict(stride=(2, 1), pads=(1, 1, 1, 1))),
    "one-sided pads": ((5, 5, 3), (3, 2), dict(stride=(2, 2), pads=(0, 1, 2, 0))),
    "gaps": ((7, 8, 2), (2, 1), dict(stride=(3, 4))),
    "all of it": ((4, 5, 17), (4, 5), {}),
    "one-dimensional": ((1, 9, 5), (1, 3), dict(stride=(1, 3))),
    "dilation": ((8, 9, 2), (3, 2), dict(stride=(2, 1), pads=(2, 1, 1, 0), dilation=(2, 3))),
    "dilation that starts in padding": ((7, 5, 3), (2, 3), dict(pads=(1, 2, 1, 2), dilation=(4, 2))),
}


def distinct(shape, samples):
    """Through the identity, no two values of a window are close to each other."""
    size = samples * int(np.prod(shape))
    return np.random.default_rng(1).permutation(size).reshape(samples, *shape) / 8 - size / 16


def identity(plan):
    return np.eye(plan.params[0].shape[0]).ravel()


@pytest.mark.parametrize("name", POOLS)
def test_maxpool(name):
    shape, kernel, options = POOLS[name]
    plan = pool_plan("maxpool", shape, kernel, **options)
    check(plan, FORWARDS, x=distinct(shape, 3), params=identity(plan))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("include_pad", [0, 1])
def test_avgpool(name, include_pad):
    shape, kernel, options = POOLS[name]
    check(pool_plan("avgpool", shape, kernel, include_pad=[include_pad], **options), FORWARDS)


small = st.integers(1, 4)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(small, st.integers(1, 7), st.integers(1, 5)), st.tuples(small, small), st.tuples(small, small), st.data()
)
def test_any_window(shape, kernel, stride, data):
    pads = [data.draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)]
    dilation = data.draw(st.just(()) | st.tuples(st.integers(1, shape[0]), st.integers(1, shape[1])))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation or (1, 1), strict=True)]
    if any(shape[i] + pads[i] + pads[i + 2] < reach[i] for i in (0, 1)):
        return
    plan = pool_plan("maxpool", shape, kernel, stride=stride, pads=pads, dilation=dilation)
    check(plan, FORWARDS, x=distinct(shape, 2), params=identity(plan))
    for include_pad in (0, 1):
        options = dict(stride=stride, pads=pads, include_pad=[include_pad], dilation=dilation)
        check(pool_plan("avgpool", shape, kernel, **options), FORWARDS)


@pytest.mark.parametrize(("op", "more"), [("maxpool", []), ("avgpool", [1])])
def test_hostile_dilations(op, more):
    """A window may not reach from padding to padding over the whole input."""
    good = [2, 2, 1, 1, 1, 1, 1, 1, *more]
    _core.Net(Plan([4, 4, 2], [Node(op, [0], [], [*good, 4, 4])], [], "mse", 1, 1), 1)
    for dilation in ([5, 1], [1, 5], [0, 1], [-1, 1], [1], [1, 1, 1], [1, 2**63 - 1]):
        with pytest.raises(ModelError, match=rf"node 0 \({op}\)"):
            _core.Net(Plan([4, 4, 2], [Node(op, [0], [], [*good, *dilation])], [], "mse", 1, 1), 1)


def test_the_first_of_equals_gets_the_gradient():
    net = _core.Net(pool_plan("maxpool", (2, 2, 1), (2, 2), stride=(2, 2)), 1)
    gradient = np.empty(1, np.float32)
    net.gradient(np.float32([1]), np.ones(4, np.float32), np.float32([0]), gradient)
    assert gradient == [2.0]


@pytest.mark.parametrize("place", range(4))
def test_nan_is_the_largest(place):
    net = _core.Net(Plan([2, 2, 1], [Node("maxpool", [0], [], [2, 2, 1, 1, 0, 0, 0, 0])], [], "mse", 1, 1), 1)
    x, out = np.float32([1, 2, 3, 4]), np.zeros((1, 1, 1, 1), np.float32)
    x[place] = np.nan
    net.predict(np.empty(0, np.float32), x, out.reshape(-1))
    assert np.isnan(out).all()


@pytest.mark.parametrize("place", range(9))
@pytest.mark.parametrize("value", [0, -1, 5, 2**31, 2**63 - 1, -(2**63)])
def test_hostile_attributes(place, value):
    good = [2, 2, 1, 1, 0, 0, 0, 0, 1]
    ints = [*good[:place], value, *good[place + 1 :]]
    for op, count in (("maxpool", 8), ("avgpool", 9)):
        fine = (value == 0 and place >= 4) or (value == 5 and place in (2, 3)) or place >= count
        if not fine:
            with pytest.raises(ModelError, match=rf"node 0 \({op}\)"):
                _core.Net(Plan([4, 4, 2], [Node(op, [0], [], ints[:count])], [], "mse", 1, 1), 1)


def test_needs_an_image():
    with pytest.raises(ModelError, match="H, W, C"):
        _core.Net(Plan([4, 4], [Node("maxpool", [0], [], [2, 2, 1, 1, 0, 0, 0, 0])], [], "mse", 1, 1), 1)
