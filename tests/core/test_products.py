"""Dense layers of every awkward size on every instruction set: forward, both gradients, and the step of SGD that is
fused into the second, against the same in float64 NumPy."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan

# (B, I, O): each tile's height, masked and whole vectors, one and several panels, pieces of K; the last few have
# packed panels, whole pages for rows, and inputs' gradients that are turned in several pieces.
SHAPES = [
    *((batch, 17, 37) for batch in range(1, 14)),
    *((5, size, size + 1) for size in (1, 2, 3, 4, 7, 8, 9, 15, 16, 63, 65)),
    (10, 200, 10),
    (12, 33, 200),
    (26, 10, 5),
    (31, 64, 3),
    (33, 20, 300),
    (3, 300, 130),
    (25, 600, 40),
    (97, 20, 70),
    (100, 130, 66),
    (24, 31, 1024),
]
RATES = [  # the first two have an epilogue of their own
    dict(lr=0.1),
    dict(lr=0.03, weight_decay=0.2),
    dict(lr=0.1, prox_mu=0.3),
    dict(lr=0.1, momentum=0.9),
    dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2, prox_mu=0.3),
]
NONE = dict(lr=0.0, momentum=0.0, weight_decay=0.0, prox_mu=0.0, clip_norm=0.0)


def close(ours, reference, what):
    worst = np.abs(ours - reference).max() / max(np.abs(reference).max(), 1e-3)
    assert worst < 2e-5, f"{what}: off by {worst:.2g}"


def gradient_of(front, w, b, x, y):
    """Of mean((x front w + b - y)^2), in float64."""
    hidden = x @ front
    dy = 2 * (hidden @ w + b - y) / y.size
    return [x.T @ (dy @ w.T), hidden.T @ dy, dy.sum(0)]


def descend(tensors, x, y, steps, *, lr, momentum=0.0, weight_decay=0.0, prox_mu=0.0, nesterov=False):
    start, moved = [t.copy() for t in tensors], [np.zeros_like(t) for t in tensors]
    for _ in range(steps):
        for t, g, t0, v in zip(tensors, gradient_of(*tensors, x, y), start, moved, strict=True):
            g = g + weight_decay * t + prox_mu * (t - t0)
            v[...] = momentum * v + g
            t -= lr * (g + momentum * v if nesterov else v)
    return np.concatenate([(t - t0).ravel() for t, t0 in zip(tensors, start, strict=True)])


def check(batch, wide, out):
    sizes = [[wide, wide], [wide, out], [out]]
    plan = Plan(
        [wide],
        [Node("dense", [0], [0]), Node("dense", [1], [1, 2])],
        [Param(name, size) for name, size in zip("fwb", sizes, strict=True)],
        "mse",
        2,
        2,
    )
    net, rng = _core.Net(plan, batch), np.random.default_rng(batch * wide * out)
    params = rng.normal(0, wide**-0.5, plan.num_params).astype(np.float32)
    x, y = rng.normal(0, 1, (batch, wide)).astype(np.float32), rng.normal(0, 1, (batch, out)).astype(np.float32)
    ends = np.cumsum([np.prod(size) for size in sizes])[:-1]
    tensors = [t.reshape(s) for t, s in zip(np.split(np.float64(params), ends), sizes, strict=True)]
    where, got, delta = f"{batch}x{wide}x{out}", np.empty((batch, out), np.float32), np.empty_like(params)

    net.predict(params, x.ravel(), got.reshape(-1))
    close(got, np.float64(x) @ tensors[0] @ tensors[1] + tensors[2], f"{where} forward")
    net.gradient(params, x.ravel(), y.ravel(), delta)
    close(delta, np.concatenate([g.ravel() for g in gradient_of(*tensors, np.float64(x), y)]), f"{where} gradient")
    for rates in RATES:
        options = {**NONE, **rates, "epochs": 2, "batch_size": batch, "max_steps": 0, "seed": 0}
        expected = descend([t.copy() for t in tensors], np.float64(x), y, 2, **rates)
        for buffered in (False, True):
            net.fit(params, x.ravel(), y.ravel(), delta, buffered=buffered, **options)
            close(delta, expected, f"{where} {rates}, buffered {buffered}")


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_dense_layers_of_any_size(isa):
    done = subprocess.run(
        [sys.executable, __file__], env={**os.environ, "EDGEFL_ISA": isa}, capture_output=True, text=True, check=False
    )
    if "not supported by this processor" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    for shape in SHAPES:
        check(*shape)
