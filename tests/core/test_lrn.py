"""lrn against float64 NumPy, and the plans that are refused."""

from __future__ import annotations

import pytest
from gradcheck import check, one_op
from plan_reference import FORWARD

from edgefl import _core
from edgefl.errors import ModelError


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 40])
@pytest.mark.parametrize("shape", [[7], [3, 2, 19], [1]])
def test_lrn(shape, size):
    check(one_op("lrn", shape, ints=[size], floats=[0.7, 0.75, 1.3]), FORWARD)


@pytest.mark.parametrize("floats", [[0.0, 0.75, 1.0], [1e-4, 0.0, 1.0], [2.0, 3.0, 0.1]])
def test_attributes(floats):
    check(one_op("lrn", [2, 6], ints=[3], floats=floats), FORWARD, tolerance=1e-3)


def test_its_flops_are_those_of_its_neighbours():
    """An owner's bound on work counts them."""
    flops = [_core.plan_flops(one_op("lrn", [5, 1000], ints=[size], floats=[1, 1, 1])) for size in (5, 500, 1000, 2000)]
    assert flops[1] - flops[0] == 495 * 5000 and flops[2] == flops[3] == flops[1] + 500 * 5000


@pytest.mark.parametrize(
    ("ints", "floats"),
    [([0], [1, 1, 1]), ([2**31], [1, 1, 1]), ([3], [-1, 1, 1]), ([3], [1, -1, 1]), ([3], [1, 1, 0]),
     ([3], [float("nan"), 1, 1])],
)  # fmt: skip
def test_a_wrong_plan_is_refused(ints, floats):
    with pytest.raises(ModelError, match=r"\(lrn\): needs"):
        _core.Net(one_op("lrn", [4], ints=ints, floats=floats))
