"""The core's own exponentials: accuracy, extremes, and NaN that is not swallowed."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.plan import Node, Plan


def apply(name, x):
    x = np.float32(x)
    out = np.empty_like(x)
    _core.Net(Plan([len(x)], [Node(name, [0])], [], "mse", 1, 1), 1).predict(np.empty(0, np.float32), x, out)
    return out


@pytest.mark.parametrize(("name", "exact"), [("tanh", np.tanh), ("sigmoid", lambda x: np.exp(-np.logaddexp(0, -x)))])
def test_accuracy_over_the_whole_range(name, exact):
    x = np.concatenate([np.linspace(-100, 100, 4001), np.linspace(-0.7, 0.7, 1001), [1e-30, -1e-20, 1e-4, 0.625]])
    x = np.float32(x)
    got, expected = apply(name, x), exact(np.float64(x))
    far = np.abs(expected) < 1e-37  # below e^-87 the core stays at the smallest normal float32
    assert np.allclose(got[~far], expected[~far], rtol=1e-6, atol=0)
    assert np.allclose(got[far], expected[far], rtol=0, atol=1e-37)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
def test_softmax_accuracy(n):
    x = np.float32(np.linspace(-1, 1, n))
    e = np.exp(np.float64(x))
    assert np.allclose(apply("softmax", x), e / e.sum(), rtol=1e-6, atol=0)
    assert np.allclose(apply("log_softmax", x), np.log(e / e.sum()), rtol=1e-6, atol=1e-6)


def test_nothing_overflows():
    assert np.allclose(apply("softmax", [1e4, 0, -1e4]), [1, 0, 0], atol=1e-36)
    assert np.allclose(apply("log_softmax", [1e4, 0, -1e4]), [0, -1e4, -2e4])
    assert np.allclose(apply("sigmoid", [3e38, -3e38]), [1, 0], atol=1e-36)
    assert apply("tanh", [3e38, -3e38]).tolist() == [1, -1]


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softmax", "log_softmax"])
@pytest.mark.parametrize("place", [0, 4, 20])
def test_nan_passes(name, place):
    x = np.zeros(21)
    x[place] = np.nan
    assert np.isnan(apply(name, x)[place])
