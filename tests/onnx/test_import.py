"""ONNX in: exporters' patterns become plans that compute what onnxruntime computes, before and after training;
the rest is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import onnx_model

import edgefl
from edgefl.errors import UsageError
from edgefl.onnx.evaluate import OnnxEvaluator


def trained(model: edgefl.Model, trainer: edgefl.Trainer) -> np.ndarray:
    """Params (P,) after a few steps on random data."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, *model.plan.input_shape)).astype(np.float32)
    if model.plan.loss == "cross_entropy":
        y = rng.integers(0, model.output_shape[0], 30)
    else:
        y = rng.integers(0, 2, (30, *model.output_shape)).astype(np.float32)
    return model.params + trainer.fit(model.params, x, y, epochs=2, batch_size=10, lr=0.05).delta


def assert_same_as_onnxruntime(model: edgefl.Model) -> None:
    """predict agrees with onnxruntime on the file as it came, trained, and saved."""
    trainer = edgefl.Trainer(model.plan)
    after = trained(model, trainer)
    assert (after != model.params).any()
    saved = edgefl.load(model.to_bytes(after), loss=model.plan.loss)
    x = np.random.default_rng(3).normal(size=(7, *model.plan.input_shape)).astype(np.float32)
    for ours, theirs in ((model, model), (saved, saved)):
        expected = OnnxEvaluator(theirs).predict(theirs.params, x)
        np.testing.assert_allclose(trainer.predict(ours.params, x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(saved.params, after, rtol=1e-6, atol=0)


HEAD = "(float[N,6] x) => (float[N,3] y)"
PATTERNS = {
    "torch_gemm": HEAD + "<float[5,6] w0, float[5] b0, float[3,5] w1, float[3] b1>"
    "{ h = Gemm<transB=1>(x, w0, b0) r = Relu(h) y = Gemm<transB=1>(r, w1, b1) }",
    "keras_matmul_add": HEAD + "<float[6,5] W, float[5] B, float[5,3] W1, float[3] B1>"
    "{ h = MatMul(x, W) z = Add(h, B) t = Tanh(z) u = MatMul(t, W1) v = Add(B1, u) y = Softmax(v) }",
    "row_bias": HEAD + "<float[6,3] W, float[1,3] B> { h = MatMul(x, W) y = Add(B, h) }",
    "no_bias_log_softmax": HEAD + "<float[6,3] W> { h = MatMul(x, W) y = LogSoftmax<axis=1>(h) }",
    "alpha_beta": HEAD + "<float[6,3] W, float[3] B> { y = Gemm<alpha=0.5, beta=2.0>(x, W, B) }",
    "transposed_in_graph": HEAD + "<float[3,6] W> { T = Transpose<perm=[1,0]>(W) y = MatMul(x, T) }",
    "sliced_out_of_one_tensor": HEAD + "<float[10,3] W, int64[2] from = {2,0}, int64[2] to = {8,3}>"
    "{ S = Slice(W, from, to) y = MatMul(x, S) }",
    "concatenated": HEAD + "<float[6,1] W, float[6,2] V> { C = Concat<axis=1>(W, V) y = MatMul(x, C) }",
    "gathered": HEAD + "<float[6,4] W, int64[3] i = {3,0,2}> { G = Gather<axis=1>(W, i) y = MatMul(x, G) }",
    "bias_unsqueezed": HEAD + "<float[6,3] W, float[3] B, int64[1] a = {0}>"
    "{ h = MatMul(x, W) b = Unsqueeze(B, a) y = Add(h, b) }",
    "identities_and_casts": HEAD + "<float[6,3] W>"
    "{ x1 = Identity(x) x2 = Cast<to=1>(x1) V = Identity(W) U = Cast<to=1>(V) h = MatMul(x2, U) y = Identity(h) }",
    "constants": HEAD + "{ W = Constant<value = float[6,3] {1,0,0,0,1,0,0,0,1,1,2,0,0,1,3,0,0,1}>()"
    " B = Constant<value_floats = [1.0,-2.0,0.5]>() y = Gemm(x, W, B) }",
    "two_classes_sigmoid": "(float[N,6] x) => (float[N,1] y) <float[6,1] W> { h = MatMul(x, W) y = Sigmoid(h) }",
    "fixed_batch": "(float[1,2,3] x) => (float[1,3] y) <float[6,3] W> { f = Flatten<axis=1>(x) y = MatMul(f, W) }",
    "fixed_batch_flatten_all": "(float[1,2,3] x) => (float[1,3] y) <float[6,3] W>"
    "{ f = Flatten<axis=0>(x) y = MatMul(f, W) }",
    "fixed_batch_reshape": "(float[4,2,3] x) => (float[4,3] y) <float[6,3] W, int64[2] s = {4,-1}>"
    "{ f = Reshape(x, s) y = MatMul(f, W) }",
    "reshape_keeping_samples": "(float[N,2,3] x) => (float[N,3] y) <float[6,3] W, int64[2] s = {-1,6}>"
    "{ f = Reshape(x, s) y = MatMul(f, W) }",
    "torch_flatten_chain": "(float[N,2,3] x) => (float[N,3] y)"
    "<float[6,3] W, int64 zero = {0}, int64[1] a = {0}, int64[1] rest = {-1}>"
    "{ s = Shape(x) n = Gather<axis=0>(s, zero) u = Unsqueeze(n, a) t = Concat<axis=0>(u, rest)"
    " f = Reshape(x, t) y = MatMul(f, W) }",
    "sequence_of_rows": "(float[N,4,6] x) => (float[N,2] y) <float[6,3] W, float[3] B, float[12,2] V>"
    "{ h = MatMul(x, W) z = Add(h, B) f = Flatten(z) y = MatMul(f, V) }",
    "dead_nodes": HEAD + "<float[6,3] W> { y = MatMul(x, W) d = Erf(y) e = Floor(d) }",
    "dropout_of_nothing": HEAD + "<float[6,3] W, float r = {0}> { h = Dropout(x, r) y = MatMul(h, W) }",
    "extra_readout": "(float[N,6] x) => (float[N,3] y, int64[N] k, float[N,3] p) <float[6,3] W>"
    "{ y = MatMul(x, W) k = ArgMax<axis=1, keepdims=0>(y) p = Softmax(y) }",
    "hidden_first": "(float[N,6] x) => (float[N,5] h, float[N,3] y) <float[6,5] W, float[5,3] V>"
    "{ h = MatMul(x, W) y = MatMul(h, V) }",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_agrees_with_onnxruntime(name):
    assert_same_as_onnxruntime(edgefl.load(onnx_model(PATTERNS[name])))


@pytest.mark.parametrize(
    "name",
    [
        "cntk_mnist-8",
        "hls4ml_conv2d_small_keras",
        "hls4ml_two_layer_keras",
        "pytorch_linear_regression_AI_Study",
        "pytorch_tiny_mnist_cnn",
    ],
)
def test_real_file_agrees_with_onnxruntime(shared, name):
    assert_same_as_onnxruntime(edgefl.load(shared / "models" / f"{name}.onnx"))


def test_names_are_the_files_own_and_unique():
    text = HEAD + "<float[6,6] W, float[6] B> { U = Identity(W) h = Gemm(x, W, B) r = Relu(h) s = Gemm(r, U, B)"
    ones = ",".join("1" * 18)
    proto = onnx_model(f"{text} [out] y = MatMul(s, V) [c] V = Constant<value = float[6,3] {{{ones}}}>() }}")
    assert [p.name for p in edgefl.load(proto).plan.params] == ["W", "B", "out.weight"]
    assert [p.name for p in edgefl.load(proto, untie=["W", "B"]).plan.params] == ["W", "B", "W.2", "B.2", "out.weight"]


@pytest.mark.parametrize(
    ("outputs", "tail", "named", "loss", "input_is_output"),
    [
        (3, "Softmax", None, "cross_entropy", False),
        (3, "LogSoftmax", None, "cross_entropy", False),
        (3, None, None, "cross_entropy", True),
        (1, None, None, "mse", True),
        (6, None, None, "mse", True),  # as many as inputs: an autoencoder
        (1, "Sigmoid", None, "bce", False),
        (3, "Sigmoid", None, "bce", False),
        (1, "Sigmoid", "mse", "mse", True),
        (3, None, "mse", "mse", True),
        (1, None, "bce", "bce", True),
        (6, None, "cross_entropy", "cross_entropy", True),
    ],
)
def test_loss_is_inferred_or_named(outputs, tail, named, loss, input_is_output):
    end = f"y = {tail}(h)" if tail else "y = Identity(h)"
    model = edgefl.load(
        onnx_model(f"(float[N,6] x) => (float[N,O] y) <float[6,{outputs}] W> {{ h = MatMul(x, W) {end} }}"), loss=named
    )
    assert model.plan.loss == loss
    assert model.loss_inferred is (named is None)
    assert (model.plan.loss_input == model.plan.output) is input_is_output
    assert_same_as_onnxruntime(model)


@pytest.mark.parametrize(
    ("outputs", "tail", "named", "hint"),
    [
        (1, "Identity", "cross_entropy", "use 'bce' or 'mse'"),
        (3, "Softmax", "mse", "use 'cross_entropy'"),
        (3, "LogSoftmax", "bce", "use 'cross_entropy'"),
        (3, "Sigmoid", "cross_entropy", "use 'bce'"),
        (3, "Softmax", "cross-entropy", "did you mean 'cross_entropy'?"),
    ],
)
def test_loss_that_does_not_fit_is_wrong_use(outputs, tail, named, hint):
    proto = onnx_model(f"(float[N,6] x) => (float[N,O] y) <float[6,{outputs}] W> {{ h = MatMul(x, W) y = {tail}(h) }}")
    with pytest.raises(UsageError) as wrong:
        edgefl.load(proto, loss=named)
    assert hint in str(wrong.value)
