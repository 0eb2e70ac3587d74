"""group_norm: each sample normalised by groups, with weights for groups, for columns, or without."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError


def normed(shape, groups, inner, affine):
    nodes = [Node("dense", [0], [0, 1]), Node("group_norm", [1], [2, 3] if affine else [], [groups, inner], [1e-3])]
    params = [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]])]
    params += [Param("g", [affine]), Param("h", [affine])] if affine else []
    return Plan(shape, [*nodes, Node("tanh", [2])], params, "mse", 3, 3)


@pytest.mark.parametrize(
    ("shape", "groups", "inner"),
    [
        ([3, 3, 4], 4, 1),
        ([3, 3, 4], 2, 2),
        ([5, 6], 1, 6),
        ([6, 5], 3, 10),
        ([2, 17], 17, 1),
        ([12], 2, 3),
        ([8], 1, 8),
    ],
)
@pytest.mark.parametrize("affine", ["none", "groups", "columns"])
def test_gradients(affine, shape, groups, inner):
    plan = normed(shape, groups, inner, {"none": 0, "groups": groups, "columns": groups * inner}[affine])
    check(plan, FORWARD)
    fused_equals_buffered(plan)


def test_a_large_mean_leaves_the_digits():
    plan = Plan([64, 8], [Node("group_norm", [0], [], [2, 4], [0.0])], [], "mse", 1, 1)
    x, out = np.random.default_rng(0).normal(1e4, 1, (1, 64, 8)).astype(np.float32), np.empty(512, np.float32)
    _core.Net(plan, 1).predict(np.empty(0, np.float32), x.ravel(), out)
    exact = FORWARD["group_norm"](plan.nodes[0], np.float64(x))
    assert abs(out - exact.ravel()).max() < 2e-3


def test_samples_do_not_meet():
    plan, rng = normed([4, 6], 3, 2, 3), np.random.default_rng(0)
    net, params = _core.Net(plan, 4), rng.normal(size=plan.num_params).astype(np.float32)
    x, out = rng.normal(size=(4, 24)).astype(np.float32), np.empty((4, 24), np.float32)
    net.predict(params, x.ravel(), out.reshape(-1))
    alone = np.empty(24, np.float32)
    net.predict(params, x[2], alone)
    assert (alone == out[2]).all() and not net.mixes_samples


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("group_norm", [0], [], [2], [0.1]), "wrong number"),
        (Node("group_norm", [0], [], [4, 1], [0.1]), "divide a sample"),
        (Node("group_norm", [0], [], [0, 1], [0.1]), "divide a sample"),
        (Node("group_norm", [0], [], [2**40, 2**40], [0.1]), "divide a sample"),
        (Node("group_norm", [0], [], [3, 1], [-0.1]), "epsilon"),
        (Node("group_norm", [0], [0], [3, 1], [0.1]), "both gamma and beta"),
        (Node("group_norm", [0], [0, 1], [3, 1], [0.1]), "for each group"),
        (Node("group_norm", [0], [1, 1], [3, 2], [0.1]), "for each group"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [node], [Param("g", [3]), Param("h", [2])], "mse", 1, 1), 1)
