"""SGDClassifier's one probability for each class, as skl2onnx 1.20 writes it: each class is trained by itself."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import moved, onnx_model

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator

LOGISTIC = "n = Mul(s, minus) e = Exp(n) d = Add(e, one) p = Reciprocal(d)"
CLIPPED = "q = Clip(s, minus, one) d = Add(q, one) p = Div(d, two)"
SHARES = """(float[N,4] x) => (int64[N,1] label, float[N,3] y) <float[4,3] W, float[1,3] b, float minus = {{-1.0}},
    float one = {{1.0}}, float two = {{2.0}}, float three = {{3.0}}, int64[1] axis = {{1}}> {{
    m = MatMul(x, W) s = Add(m, b) {p} r = ReduceSum(p, axis) t = Cast<to = 9>(r) f = Not(t) z = Cast<to = 1>(f)
    u = Add(p, z) k = Mul(z, three) v = Add(r, k) y = Div(u, v) label = ArgMax<axis = 1>(y) }}"""


def test_a_logistic_for_each_class_is_trained_by_itself():
    model = edgefl.load(onnx_model(SHARES.format(p=LOGISTIC)))
    assert (model.plan.loss, [node.op for node in model.plan.nodes]) == ("bce", ["dense", "sigmoid"])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)).astype(np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 20)]
    weights, bias = np.split(model.params.astype(np.float64), [12])
    logits = x @ weights.reshape(4, 3) + bias
    trainer = edgefl.Trainer(model.plan)
    np.testing.assert_allclose(trainer.predict(model.params, x), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    slope = (1 / (1 + np.exp(-logits)) - y) / y.size
    expected = np.concatenate([(x.T @ slope).ravel(), slope.sum(0)])
    np.testing.assert_allclose(trainer.gradient(model.params, x, y), expected, atol=1e-6)
    saved = edgefl.load(model.to_bytes(moved(model)))
    theirs = OnnxEvaluator(saved).predict(saved.params, x)
    np.testing.assert_allclose(trainer.predict(moved(model), x), theirs, rtol=1e-5)


def test_other_probabilities_are_refused_with_what_to_export():
    with pytest.raises(ModelError, match=r"a loss that is not trained: export scores, .* raw_scores=True"):
        edgefl.load(onnx_model(SHARES.format(p=CLIPPED)))
