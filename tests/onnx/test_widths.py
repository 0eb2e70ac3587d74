"""Which input a constant is, and how many axes a result has: what ONNX's forms of one op leave to the reader."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx_files import assert_computes, onnx_model

import edgefl
from edgefl.errors import ModelError

TWO = "(float[N,4] x) => (float[N,4] y) <float[4,4] W, float[4,4] V, float[4] g, float[4] h, float[4] b> "
TWO += "{ s = MatMul(x, W) t = MatMul(s, V) "
SLOTS = {
    "sum": "a = Sum(s, t, b) y = Sum(a, s, b) }",
    "max": "a = Max(s, t, b) y = Max(a, s, b) }",
    "less": "c = Less(b, s) a = Where(c, s, t) d = Less(b, a) y = Where(d, a, t) }",
    "skip norm": "a = com.microsoft.SkipLayerNormalization(s, t, g, h, b)"
    " y = com.microsoft.SkipLayerNormalization(a, t, g, h, b) }",
    "skip rms norm": "a = com.microsoft.SkipSimplifiedLayerNormalization(s, t, g, b)"
    " y = com.microsoft.SkipSimplifiedLayerNormalization(a, t, g, b) }",
}


@pytest.mark.parametrize("name", SLOTS)
def test_a_fresh_constant_that_parts_is_read_from_its_own_input(name):
    """Two nodes read one tensor of zeros; each has its own in the saved file."""
    model = edgefl.load(onnx_model(TWO + SLOTS[name], b=np.zeros(4, np.float32)), loss="mse")
    assert {p.name for p in model.plan.params if p.trainable} > {"b", "b.2"}
    assert_computes(model)


def test_a_product_with_a_weight_of_three_axes_has_three():
    assert_computes(edgefl.load(onnx_model(
        "(float[N,4] x) => (float[1,N,4] y) <float[1,4,4] W> { m = MatMul(x, W) y = Softmax<axis=2>(m) }"
    )))  # fmt: skip


def test_squeeze_without_axes_takes_off_that_of_one_sample():
    file = onnx_model("(float[1,3,1,4] x) => (float[3,5] y) <float[4,5] W> { m = MatMul(x, W) s = Squeeze(m) "
                      "y = Softmax<axis=1>(s) }").SerializeToString()  # fmt: skip
    model = edgefl.load(file)
    x = np.random.default_rng(0).normal(size=(1, *model.plan.input_shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x.reshape(1, 3, 1, 4)})
    np.testing.assert_allclose(edgefl.Trainer(model.plan).predict(model.params, x).reshape(3, 5), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("condition", "other"), [("bool c = {1}", "r"), ("bool[1,4] c = {1, 0, 1, 1}", "f")], ids=["one", "several"]
)
def test_where_does_not_widen(condition, other):
    text = f"""(float[N,4] x) => (float[N,4] y)
        <float[4,4] W, float[4,12] V, float[3,4] f, {condition}, int64[3] shape = {{-1, 3, 4}}, int64[1] axis = {{1}}>
        {{ m = MatMul(x, W) u = Unsqueeze(m, axis) q = MatMul(x, V) r = Reshape(q, shape)
          w = Where(c, u, {other}) y = ReduceSum<keepdims=0>(w, axis) }}"""
    with pytest.raises(ModelError, match=r"it widens .*: expand it before"):
        edgefl.load(onnx_model(text, f=np.zeros((3, 4), np.float32)), loss="mse")
