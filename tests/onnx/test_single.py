"""Files for one sample: without an axis of samples, or with one that is reshaped away; and products with vectors."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import onnx_model

import edgefl
from edgefl.core.targets import OF_CLASSES
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator

# graph, the shape of a sample and of its output
FILES = {
    "vector": ("(float[6] x) => (float[3] y) <float[6,3] W, float[3] b> { h = MatMul(x, W) y = Add(h, b) }", [6], (3,)),
    "left": (
        "(float[6] x) => (float[3] y) <float[4,6] W, float[4] b, float[3,4] V> "
        "{ a = MatMul(W, x) c = Add(a, b) h = Relu(c) y = MatMul(V, h) }",
        [6],
        (3,),
    ),
    "dot": ("(float[6] x) => (float[4] y) <float[6,4] W> { y = MatMul(x, W) }", [6], (4,)),
    "matrix_vector": (
        "(float[5,6] x) => (float[5] y) <float[6,4] W, float[4] w> { h = MatMul(x, W) t = Tanh(h) y = MatMul(t, w) }",
        [6],
        (),
    ),
    "softmax": (
        "(float[6] x) => (float[3] y) <float[6,3] W> { h = MatMul(x, W) y = Softmax<axis = 0>(h) }",
        [6],
        (3,),
    ),
    "picture": (
        """(float[3,8,8] x) => (float[5] y) <float[4,3,3,3] k, float[4] b, float[144,5] W>
        { at = Constant<value_ints = [0]> () u = Unsqueeze(x, at) c = Conv(u, k, b) r = Relu(c)
          m = AveragePool<kernel_shape = [1,1]>(r) f = Constant<value_ints = [144]> () s = Reshape(m, f)
          y = MatMul(s, W) }""",
        [3, 8, 8],
        (5,),
    ),
    "reshaped_away": (
        """(float[1,3,8,8] x) => (float[5] y) <float[4,3,3,3] k, float[4] b, float[144,5] W>
        { c = Conv(x, k, b) r = Relu(c) f = Constant<value_ints = [144]> () s = Reshape(r, f) y = MatMul(s, W) }""",
        [3, 8, 8],
        (5,),
    ),
    "sequence": (
        """(float[7,4] x) => (float[7,3] y) <float[1,20,4] W, float[1,20,5] R, float[1,40] B, float[5,3] V>
        { one = Constant<value_ints = [1]> () u = Unsqueeze(x, one) h = LSTM<hidden_size = 5>(u, W, R, B)
          two = Constant<value_ints = [1,2]> () s = Squeeze(h, two) y = MatMul(s, V) }""",
        [7, 4],
        (7, 3),
    ),
    "attention": (
        """(float[6,4] x) => (float[6,4] y) <float[4,4] Q, float[4,4] K>
        { q = MatMul(x, Q) k = MatMul(x, K) t = Transpose<perm = [1,0]>(k) s = MatMul(q, t) a = Softmax<axis = 1>(s)
          y = MatMul(a, x) }""",
        [6, 4],
        (6, 4),
    ),
    "two_vectors": (
        """(float[4] a, float[3] b) => (float[2] y) <float[4,5] W, float[3,5] V, float[5,2] U>
        { p = MatMul(a, W) q = MatMul(b, V) h = Add(p, q) y = MatMul(h, U) }""",
        [7],
        (2,),
    ),
    "turned": (
        """(float[5,1] a, float[1,5] b) => (float[1,2] y) <float[5,2] W, float[5,2] V>
        { p = Gemm<transA = 1>(a, W) q = Gemm(b, V) y = Add(p, q) }""",
        [10],
        (1, 2),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_one_sample_is_computed_as_onnxruntime_does_and_trained(name):
    text, shape, output = FILES[name]
    model = edgefl.load(onnx_model(text))
    rng = np.random.default_rng(0)
    batched = name == "matrix_vector"
    assert model.alone is not batched and tuple(model.plan.input_shape) == tuple(shape)
    assert model.output_shape == output
    x = rng.normal(size=(8, *shape)).astype(np.float32)
    trainer, evaluator = edgefl.Trainer(model.plan), OnnxEvaluator(model)
    np.testing.assert_allclose(
        trainer.predict(model.params, x), evaluator.predict(model.params, x), rtol=1e-4, atol=1e-5
    )
    labels = model.plan.loss in OF_CLASSES
    y = rng.integers(0, output[-1], (8, *output[:-1])) if labels else rng.normal(size=(8, *output)).astype(np.float32)
    result = trainer.fit(model.params, x, y, batch_size=4, lr=0.05, epochs=3)
    after = model.params + result.delta
    saved = edgefl.load(model.to_bytes(after), loss=model.losses)
    np.testing.assert_allclose(
        trainer.predict(after, x), OnnxEvaluator(saved).predict(saved.params, x), rtol=1e-4, atol=1e-5
    )
    assert trainer.evaluate(after, x, y).loss < trainer.evaluate(model.params, x, y).loss
    assert evaluator.evaluate(after, x, y).loss == pytest.approx(trainer.evaluate(after, x, y).loss, rel=1e-4)


MIXED = "(float[N,4] x) => (float[M,4] y) <float[4,4] W> { s = Softmax<axis = 0>(x) y = MatMul(s, W) }"


def test_a_free_number_of_samples_is_kept_apart_unless_dims_gives_it():
    with pytest.raises(ModelError, match=r"it mixes samples.*one sample at a time: dims=\{'N': 1\}"):
        edgefl.load(onnx_model(MIXED))
    model = edgefl.load(onnx_model(MIXED), dims={"N": 5})
    assert (model.plan.input_shape, model.output_shape) == ([5, 4], (5, 4))
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    ours, theirs = edgefl.Trainer(model.plan).predict(model.params, x), OnnxEvaluator(model).predict(model.params, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_file_for_one_sample_is_never_run_on_several():
    """onnxruntime would run it on four, which are one softmax to it."""
    model = edgefl.load(onnx_model(MIXED), dims={"N": 1})
    x = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        OnnxEvaluator(model).predict(model.params, x), edgefl.Trainer(model.plan).predict(model.params, x), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["conv_mp1", "fc2", "multiInput_add", "ACASXU", "TinyViT", "ltsf", "rnn_network"])
def test_real_files_for_one_sample(shared, name):
    path = next((shared / "models" / "wanted").glob(f"*{name}*"))
    dims = {"fc2": {"batch_size": 1}, "rnn_network": {"batch_size": 8}}.get(name, {})
    model = edgefl.load(path, dims=dims)
    x = np.random.default_rng(0).normal(size=(3, *model.plan.input_shape)).astype(np.float32)
    ours, theirs = edgefl.Trainer(model.plan).predict(model.params, x), OnnxEvaluator(model).predict(model.params, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
