"""step and keep: what depends on whether a number is above 0."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import BASIC, check, fused_equals_buffered
from plan_reference import FORWARD as ALL

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

FORWARD = {**BASIC, "keep": ALL["keep"], "step": ALL["step"], "mean": ALL["mean"], "slice": ALL["slice"]}


@pytest.mark.parametrize("axes", [[0], [1], [0, 2], [0, 1, 2]], ids=str)
def test_keep_broadcasts_its_condition(axes):
    """The condition is made of the input, so that a small step of the params does not change it."""
    shape = [3, 4, 17]
    narrow = [1 if axis in axes else size for axis, size in enumerate(shape)]
    nodes = [
        Node("dense", [0], [0, 1]), Node("mean", [0], [], axes), Node("reshape", [2], [], narrow),
        Node("keep", [1, 3], [], [], [-0.5]), Node("tanh", [4]),
    ]  # fmt: skip
    plan = Plan(shape, nodes, [Param("w", [17, 17]), Param("b", [17])], "mse", 5, 5)
    check(plan, {**FORWARD, "reshape": ALL["reshape"]})
    fused_equals_buffered(plan)


def test_what_is_not_kept_and_the_condition_have_no_gradient():
    nodes = [Node("add", [0], [0]), Node("keep", [1, 1], [], [], [3.0])]
    net, gradient = _core.Net(Plan([2], nodes, [Param("b", [2])], "mse", 2, 2), 1), np.ones(2, np.float32)
    net.gradient(np.zeros(2, np.float32), np.float32([1, -1]), np.float32([0, 0]), gradient)
    assert gradient.tolist() == [1, 0]


def test_a_step_has_its_numbers_and_no_gradient():
    nodes = [Node("add", [0], [0]), Node("step", [1], [], [], [2.0, -1.0])]
    net, gradient = _core.Net(Plan([4], nodes, [Param("b", [4])], "mse", 2, 2), 1), np.ones(4, np.float32)
    net.gradient(np.zeros(4, np.float32), np.float32([1, 0, -1, np.nan]), np.zeros(4, np.float32), gradient)
    assert gradient.tolist() == [0] * 4
    out = np.empty(4, np.float32)
    net.predict(np.zeros(4, np.float32), np.float32([1e-30, 0, -1, np.nan]), out)
    assert out.tolist() == [2, -1, -1, -1]


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("step", [0], [], [], [1.0]), "wrong number"),
        (Node("step", [0], [], [], [np.inf, 0.0]), "finite"),
        (Node("keep", [0], [], [], [0.0]), "wrong number"),
        (Node("keep", [1, 0], [], [], [0.0]), "broadcasts"),
        (Node("keep", [0, 1], [], [], [0.0]), "broadcasts"),
        (Node("keep", [0, 0], [], [], [np.nan]), "finite"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [Node("flatten", [0]), node], [], "mse", 2, 2), 1)
