"""What a condition chooses: weights that stand in for what is left out, and outputs that are chosen alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import assert_computes, onnx_model, ops

import edgefl
from edgefl.errors import ModelError, UsageError

NET = """(int64[N,6] t) => (float[N,6,3] y) <float[10,8] E, float[{shape}] M, float[8,3] W, float one = {{1.0}},
    int64 three = {{3}}, int64[1] last = {{2}}> {{ x = Gather(E, t) c = Equal(t, three) k = Unsqueeze(c, last)
    h = Where({chosen}) y = MatMul(h, W) }}"""


@pytest.mark.parametrize("shape", ["8", "6,1", "1,1,8"])
@pytest.mark.parametrize("chosen", ["k, M, x", "k, x, M"])
def test_a_weight_that_stands_in_is_trained(shape, chosen):
    model = assert_computes(edgefl.load(onnx_model(NET.format(shape=shape, chosen=chosen)).SerializeToString()))
    assert {param.name for param in model.plan.params if param.trainable} == {"E", "M", "W"}


@pytest.mark.parametrize("chosen", ["k, M, one", "k, one, M", "k, M, M"])
def test_a_weight_beside_a_constant(chosen):
    model = assert_computes(edgefl.load(onnx_model(NET.format(shape="8", chosen=chosen)).SerializeToString()))
    assert {param.name for param in model.plan.params if param.trainable} == {"M", "W"}


def test_a_fresh_weight_of_zeros_is_trained_by_what_it_stands_in_for():
    """As the first step of SGD from the definition: of what is chosen, and of nothing else."""
    source = onnx_model(NET.format(shape="8", chosen="k, M, x"), M=np.zeros(8, np.float32)).SerializeToString()
    model = assert_computes(edgefl.load(source, loss="mse"))
    rng = np.random.default_rng(3)
    t, y = rng.integers(0, 10, (5, 6)), rng.normal(size=(5, 6, 3)).astype(np.float32)
    trainer = edgefl.Trainer(model.plan)
    starts = np.cumsum([0, *(param.size for param in model.plan.params)])
    at = {param.name: slice(*starts[i : i + 2]) for i, param in enumerate(model.plan.params)}
    gradient = trainer.gradient(model.params, t, y)[at["M"]].astype(np.float64)
    (weight,) = [p.shape for p in model.plan.params if p.name == "W"]
    w = model.params[at["W"]].astype(np.float64).reshape(weight)
    w = w if weight == [8, 3] else w.T
    change = 2 * (trainer.predict(model.params, t).reshape(y.shape) - y).astype(np.float64)[t == 3] @ w.T
    moved = np.zeros_like(gradient) + change.sum(0)
    scale = gradient @ moved / (moved @ moved)
    assert scale > 0 and np.abs(moved).max() > 0
    np.testing.assert_allclose(gradient, scale * moved, atol=1e-5 * np.abs(gradient).max())


LABELED = """(float[N,4] x) => ({label} label{rest}) <float[4,{n}] W, float half = {{0.5}}, float one = {{1.0}},
    float none = {{0.0}}> {{ s = MatMul(x, W) p = Sigmoid(s) c = Greater(p, half) label = {how} }}"""
LABELS = [
    ("int64[N,{n}]", "Cast<to = 7>(c)"),
    ("float[N,{n}]", "Cast<to = 1>(c)"),
    ("float[N,{n}]", "Where(c, one, none)"),
]


@pytest.mark.parametrize(("label", "how"), LABELS)
@pytest.mark.parametrize("n", [1, 3])
def test_a_label_before_its_probability_is_not_trained(label, how, n):
    text = LABELED.format(label=label.format(n=n), how=how, n=n, rest=f", float[N,{n}] p")
    model = assert_computes(edgefl.load(onnx_model(text).SerializeToString()))
    assert (model.plan.loss, ops(model)) == ("bce", ["dense", "sigmoid"])


@pytest.mark.parametrize(("label", "how"), LABELS)
def test_a_label_alone_is_refused(label, how):
    source = onnx_model(LABELED.format(label=label.format(n=1), how=how, n=1, rest="")).SerializeToString()
    with pytest.raises(ModelError, match="by comparisons alone, which have no slope: export"):
        edgefl.load(source)
    with pytest.raises(UsageError, match="by comparisons alone: leave it out"):
        edgefl.load(source, loss={"label": "mse"})
