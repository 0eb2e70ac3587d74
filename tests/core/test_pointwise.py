"""The further activations: accuracy against float64, gradients, kinks, extremes, NaN, and malformed plans refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

erf = np.vectorize(math.erf, otypes=[float])


def gelu(node, x):
    if node.ints == [1]:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


FORWARDS = {
    "leaky_relu": lambda node, x: np.where(x < 0, node.floats[0] * x, x),
    "clip": lambda node, x: np.clip(x, *node.floats),
    "hard_sigmoid": lambda node, x: np.clip(node.floats[0] * x + node.floats[1], 0, 1),
    "hard_swish": lambda node, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "gelu": gelu,
    "erf": lambda node, x: erf(x),
    "sqrt": lambda node, x: np.sqrt(x),
    "exp": lambda node, x: np.exp(x),
    "log": lambda node, x: np.log(x),
    "pow": lambda node, x: x ** node.floats[0],
    "abs": lambda node, x: np.abs(x),
    "elu": lambda node, x: np.where(x < 0, node.floats[0] * np.expm1(x), x),
    "softplus": lambda node, x: np.logaddexp(0, x),
    **{op: FORWARD[op] for op in ("mish", "threshold", "shrink", "sin", "cos")},
}
CASES = [
    ("leaky_relu", [], [0.01]), ("leaky_relu", [], [0.0]), ("leaky_relu", [], [1.5]), ("clip", [], [0.0, 6.0]),
    ("clip", [], [-0.5, 0.25]), ("clip", [], [-3.4e38, 3.4e38]), ("hard_sigmoid", [], [0.2, 0.5]),
    ("hard_sigmoid", [], [1 / 6, 0.5]), ("hard_swish", [], []), ("gelu", [0], []), ("gelu", [1], []), ("erf", [], []),
    ("sqrt", [], []), ("exp", [], []), ("log", [], []), ("pow", [], [2.0]), ("pow", [], [0.5]), ("pow", [], [-1.5]),
    ("pow", [], [1.0]), ("pow", [], [3.0]), ("abs", [], []), ("elu", [], [1.0]), ("elu", [], [0.3]),
    ("softplus", [], []), ("mish", [], []), ("threshold", [], [0.1, 0.0]), ("threshold", [], [-0.2, 3.0]),
    ("shrink", [], [0.5, 0.0]), ("shrink", [], [0.1, 0.3]), ("sin", [], []), ("cos", [], []), ("pow", [], [0.0]),
]  # fmt: skip
POSITIVE = ("sqrt", "log", "pow")


def case_id(case):
    return "-".join(map(str, [case[0], *case[1], *case[2]]))


def apply(op, ints, floats, x):
    x = np.float32(x)
    out = np.empty_like(x)
    net = _core.Net(Plan([x.size], [Node(op, [0], [], ints, floats)], [], "mse", 1, 1), 1)
    net.predict(np.empty(0, np.float32), x, out)
    return out


@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("shape", [[1], [3], [17], [2, 3, 33]], ids=str)
def test_gradients(case, shape):
    op, ints, floats = case
    nodes = [Node("dense", [0], [0, 1])] + [Node("sigmoid", [1])] * (op in POSITIVE)
    plan = Plan(
        shape,
        [*nodes, Node(op, [len(nodes)], [], ints, floats)],
        [Param("w", [shape[-1]] * 2), Param("b", [shape[-1]])],
        "mse", len(nodes) + 1, len(nodes) + 1,
    )  # fmt: skip
    check(plan, FORWARDS)
    if op != "exp" and floats != [-1.5]:  # whose training here diverges
        fused_equals_buffered(plan)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_accuracy(case):
    op, ints, floats = case
    x = np.float32(np.concatenate([np.linspace(-12, 12, 5003), np.logspace(-30, 1, 500), -np.logspace(-30, 1, 500)]))
    x = x[x > 0] if op in POSITIVE else x
    exact = FORWARDS[op](Node(op, [0], [], ints, floats), np.float64(x))
    crossing = {"gelu": 1e-6, "hard_sigmoid": 1e-7, "hard_swish": 1e-6, "shrink": 1e-7, "sin": 1e-7, "cos": 1e-7}
    rough = crossing.get(op, 1e-37)  # where a sum crosses 0
    fits = np.abs(exact) < 1e38
    assert np.allclose(apply(op, ints, floats, x)[fits], exact[fits], rtol=2e-6, atol=rough)


def test_logarithms_of_the_smallest_and_the_largest():
    x = np.float32([1.2e-38, 3.4e38, np.finfo(np.float32).max, 1, 0.70710678, 1.4142135])
    assert np.allclose(apply("log", [], [], x), np.log(np.float64(x)), rtol=1e-6, atol=1e-7)
    assert apply("log", [], [], [0, np.inf]).tolist() == [-np.inf, np.inf]
    assert apply("log", [], [], [1e-42, 1.4e-45]).tolist() == [-np.inf, -np.inf], "denormals are 0 (test_denormals.py)"
    assert np.isnan(apply("log", [], [], [-1, -np.inf])).all()


def test_exponentials_at_their_ends():
    x = np.float32([88.5, 88.7, 89, 200, -87, 0])
    with np.errstate(over="ignore"):
        assert np.allclose(apply("exp", [], [], x), np.exp(x), rtol=1e-5)
    assert apply("softplus", [], [], [3e38, -3e38]).tolist()[0] == np.float32(3e38)
    assert apply("erf", [], [], [3e38, -3e38, 0]).tolist() == [1, -1, 0]


def test_slopes_at_kinks_and_ends_are_those_of_the_flat_side():
    """x of 0 through a weight of 1: the gradient of w is x y', so it is read from a bias."""
    for op, floats, at, slope in [
        ("leaky_relu", [0.1], 0.0, 0.1), ("clip", [0.0, 6.0], 0.0, 0), ("clip", [0.0, 6.0], 6.0, 0),
        ("hard_sigmoid", [0.25, 0.5], 2.0, 0), ("abs", [], 0.0, 0), ("hard_swish", [], 3.5, 1),
        ("hard_swish", [], -4, 0),
    ]:  # fmt: skip
        nodes = [Node("add", [0], [0], [0]), Node(op, [1], [], [], floats)]
        net = _core.Net(Plan([1], nodes, [Param("b", [1])], "l1", 2, 2), 1)
        gradient, target = np.empty(1, np.float32), np.float32([-100])
        net.gradient(np.float32([at]), np.zeros(1, np.float32), target, gradient)
        assert gradient[0] == np.float32(slope), op


@pytest.mark.parametrize("case", [case for case in CASES if case != ("pow", [], [0.0])], ids=case_id)
@pytest.mark.parametrize("place", [0, 4, 20])
def test_nan_passes(case, place):
    x = np.ones(21)
    x[place] = np.nan
    assert np.isnan(apply(*case, x)).tolist() == np.isnan(x).tolist()


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("leaky_relu", [0]), "wrong number"),
        (Node("leaky_relu", [0], [], [], [-0.1]), "0 or more"),
        (Node("elu", [0], [], [], [-1.0]), "0 or more"),
        (Node("elu", [0], [], [], [math.nan]), "not finite"),
        (Node("clip", [0], [], [], [0.0, 1e300]), "not finite"),
        (Node("clip", [0], [], [], [1.0, 0.0]), "not above max"),
        (Node("pow", [0], [], [], [math.inf]), "not finite"),
        (Node("shrink", [0], [], [], [-1.0, 0.0]), "lambda of 0 or more"),
        (Node("threshold", [0], [], [], [0.0]), "wrong number"),
        (Node("mish", [0], [], [1]), "wrong number"),
        (Node("gelu", [0], [], [2]), "0 or 1"),
        (Node("gelu", [0]), "wrong number"),
        (Node("erf", [0], [0]), "wrong number"),
        (Node("softplus", [0, 0]), "wrong number"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([3], [node], [Param("w", [1])], "mse", 1, 1), 1)
