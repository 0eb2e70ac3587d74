"""ONNX in: exporters' patterns become plans that compute what onnxruntime computes, before and after training;
the rest is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgefl
from edgefl.errors import ModelError, UsageError
from edgefl.onnx_eval import OnnxEvaluator


def onnx_model(text: str, opset: int = 17, **arrays: np.ndarray) -> onnx.ModelProto:
    """A graph in ONNX's own text format; tensors declared without values get `arrays`, or random ones."""
    header = f'<ir_version: 8, opset_import: ["": {opset}, "ai.onnx.ml": 1, "onnx.brevitas": 1]>'
    proto = onnx.parser.parse_model(f"{header} g {text}")
    rng = np.random.default_rng(1)
    for info in proto.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        array = arrays.get(info.name, rng.normal(size=shape).astype(np.float32))
        proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
    del proto.graph.value_info[:]
    return proto


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


@pytest.mark.parametrize("name", ["hls4ml_two_layer_keras", "pytorch_linear_regression_AI_Study"])
def test_real_file_agrees_with_onnxruntime(shared, name):
    assert_same_as_onnxruntime(edgefl.load(shared / "models" / f"{name}.onnx"))


def test_names_are_the_files_own_and_unique():
    text = HEAD + "<float[6,6] W, float[6] B> { h = Gemm(x, W, B) r = Relu(h) s = Gemm(r, W, B) [out] y = MatMul(s, V)"
    ones = ",".join("1" * 18)
    proto = onnx_model(f"{text} [c] V = Constant<value = float[6,3] {{{ones}}}>() }}")
    assert [p.name for p in edgefl.load(proto).plan.params] == ["W", "B", "W.2", "B.2", "out.weight"]


REFUSED = {
    "conv": (
        "(float[N,1,4,4] x) => (float[N,1,2,2] y) <float[1,1,3,3] W> { [c1] y = Conv(x, W) }",
        "node 'c1' (Conv): this op is not trained",
    ),
    "quantized": (
        HEAD + "<float[6,3] W, float[1] s> { [q] V = onnx.brevitas.BipolarQuant(W, s) y = MatMul(x, V) }",
        "node 'q' (onnx.brevitas.BipolarQuant)",
    ),
    "dropout": (HEAD + "<float[6,3] W> { [d] h = Dropout(x) y = MatMul(h, W) }", "node 'd' (Dropout): dropout"),
    "float16": (HEAD + "<float16[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' is float16"),
    "double": (HEAD + "<double[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' is float64"),
    "int8": (HEAD + "<int8[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' is int8"),
    "computed_weight": (
        HEAD + "<int8[6,3] W> { V = Cast<to=1>(W) [m] y = MatMul(x, V) }",
        "node 'm' (MatMul): its weight 'W' is computed",
    ),
    "not_finite": (HEAD + "<float[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' holds NaN"),
    "left_constant": ("(float[N,6] x) => (float[3,6] y) <float[3,4] W> { [m] y = MatMul(W, x) }", "node 'm' (MatMul)"),
    "wrong_size": (HEAD + "<float[5,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): weight (5, 3) does not fit"),
    "trans_a": (HEAD + "<float[6,3] W> { [g] y = Gemm<transA=1>(x, W) }", "node 'g' (Gemm): it mixes samples"),
    "alpha_zero": (HEAD + "<float[6,3] W> { [g] y = Gemm<alpha=0.0>(x, W) }", "node 'g' (Gemm): alpha=0.0"),
    "scalar_bias": (HEAD + "<float[6,3] W, float[1] b> { h = MatMul(x, W) [a] y = Add(h, b) }", "node 'a' (Add)"),
    "bias_for_samples": (
        HEAD + "<float[6,3] W, float[1,1,3] b> { h = MatMul(x, W) [a] y = Add(h, b) }",
        "node 'a' (Add)",
    ),
    "second_bias": (HEAD + "<float[6,3] W, float[3] b> { h = Gemm(x, W, b) [a] y = Add(h, b) }", "node 'a' (Add)"),
    "sum_read_twice": (
        "(float[N,6] x) => (float[N,3] y, float[N,3] r) <float[6,3] W, float[3] b>"
        "{ h = MatMul(x, W) r = Relu(h) [a] y = Add(h, b) }",
        "node 'a' (Add): elementwise",
    ),
    "gathered_twice": (
        HEAD + "<float[6,3] W, int64[3] i = {0,0,2}> { V = Gather<axis=1>(W, i) [m] y = MatMul(x, V) }",
        "node 'm' (MatMul): its weight 'W' is computed",
    ),
    "residual": (HEAD + "<float[6,3] W> { h = MatMul(x, W) r = Relu(h) [a] y = Add(h, r) }", "node 'a' (Add)"),
    "scaled_input": (HEAD + "<float[6,3] W, float[6] s> { [s1] h = Mul(x, s) y = MatMul(h, W) }", "node 's1' (Mul)"),
    "scaler": (
        HEAD + "<float[6,3] W> { [s1] h = ai.onnx.ml.Scaler<offset=[0.0], scale=[2.0]>(x) y = MatMul(h, W) }",
        "node 's1' (ai.onnx.ml.Scaler)",
    ),
    "softmax_inside": (
        HEAD + "<float[6,6] W, float[6,3] V> { h = MatMul(x, W) [s] r = Softmax(h) y = MatMul(r, V) }",
        "node 's' (Softmax): softmax inside",
    ),
    "softmax_axis": (
        "(float[N,4,6] x) => (float[N,4,3] y) <float[6,3] W> { h = MatMul(x, W) [s] y = Softmax<axis=1>(h) }",
        "node 's' (Softmax): axis 1",
    ),
    "mixing_reshape": (
        "(float[N,2,3] x) => (float[M,3] y) <float[3,3] W, int64[2] s = {6,-1}>"
        "{ [r] f = Reshape(x, s) y = MatMul(f, W) }",
        "node 'r' (Reshape)",
    ),
    "growing_reshape": (
        "(float[N,6] x) => (float[M,3] y) <float[3,3] W, int64[2] s = {-1,3}>"
        "{ [r] f = Reshape(x, s) y = MatMul(f, W) }",
        "node 'r' (Reshape)",
    ),
    "flatten_axis": (
        "(float[N,2,3] x) => (float[M,3] y) <float[3,3] W> { [f1] f = Flatten<axis=2>(x) y = MatMul(f, W) }",
        "node 'f1' (Flatten): axis 2 mixes samples",
    ),
    "transpose": (
        "(float[N,2,3] x) => (float[N,3,3] y) <float[2,3] W> { [t] f = Transpose<perm=[0,2,1]>(x) y = MatMul(f, W) }",
        "node 't' (Transpose)",
    ),
    "label_trained_through": (
        HEAD + "<float[6,3] W, float[1,3] V> { h = MatMul(x, W) k = ArgMax<axis=1>(h) [m] y = MatMul(k, V) }",
        "node 'm' (MatMul): it reads a label",
    ),
    "one_minus": (
        "(float[N,6] x) => (float[N,1] y) <float[6,1] W, float one = {1}> { h = MatMul(x, W) p = Sigmoid(h)"
        " y = Sub(one, p) }",
        "output 'y' is 1 - p",
    ),
    "two_heads": (
        "(float[N,6] x) => (float[N,3] y, float[N,2] z) <float[6,3] W, float[6,2] V>"
        "{ y = MatMul(x, W) z = MatMul(x, V) }",
        "no output depends on all weights",
    ),
    "two_inputs": (
        "(float[N,6] x, float[N,6] w) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }",
        "one input, this one has 'x', 'w'",
    ),
    "tokens": ("(int64[N,6] x) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }", "input 'x' is not float32"),
    "dynamic_axis": ("(float[N,T,6] x) => (float[N,T,3] y) <float[6,3] W> { y = MatMul(x, W) }", "dynamic axis 1"),
    "no_samples_axis": ("(float[6] x) => (float[3] y) <float[6,3] W> { y = MatMul(x, W) }", "input 'x' has shape (6,)"),
    "nothing_to_train": ("(float[N,6] x) => (float[N,6] y) { y = Relu(x) }", "nothing to train"),
    "unknown_tensor": (HEAD + "{ [m] y = MatMul(x, W) }", "node 'm' (MatMul) reads 'W', which nothing"),
    "cycle": (HEAD + "<float[6,6] W> { a = MatMul(z, W) z = Relu(a) [m] y = MatMul(z, W) }", "its own output"),
    "made_twice": (HEAD + "<float[6,3] W> { [m] y = MatMul(x, W) [n] y = MatMul(x, W) }", "'n' (MatMul): its output"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_where_and_why(name):
    text, expected = REFUSED[name]
    arrays = {
        "float16": {"W": np.ones((6, 3), np.float16)},
        "double": {"W": np.ones((6, 3))},
        "int8": {"W": np.ones((6, 3), np.int8)},
        "computed_weight": {"W": np.ones((6, 3), np.int8)},
        "not_finite": {"W": np.full((6, 3), np.nan, np.float32)},
    }.get(name, {})
    with pytest.raises(ModelError) as refusal:
        edgefl.load(onnx_model(text, **arrays))
    assert expected in str(refusal.value)
    assert ": " in str(refusal.value), "the text must go on with what to do"


@pytest.mark.parametrize(
    ("name", "node", "op"),
    [
        ("cntk_mnist-8", "Convolution28", "Conv"),
        ("hls4ml_conv2d_small_keras", "Conv2D__", "Conv"),
        ("onnx2c_lstm_k1_b1_r1", "lstm", "LSTM"),
        ("hls4ml_bnn_model_fc_1layer", "BipolarQuant", "BipolarQuant"),
        ("pytorch_tiny_mnist_cnn", "/conv/Conv", "Conv"),
    ],
)
def test_real_file_is_refused_by_name(shared, name, node, op):
    with pytest.raises(ModelError, match=rf"{name}.onnx: node '.*{node}' \(.*{op}\): this op is not trained yet"):
        edgefl.load(shared / "models" / f"{name}.onnx")


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


def test_old_softmax_defaults_to_the_first_feature_axis():
    text = "(float[N,4,6] x) => (float[N,4,3] y) <float[6,3] W> { h = MatMul(x, W) [s] y = Softmax(h) }"
    with pytest.raises(ModelError, match=r"node 's' \(Softmax\): axis 1"):
        edgefl.load(onnx_model(text, opset=11))


def test_opset_before_broadcasting_is_refused():
    with pytest.raises(ModelError, match="opset 6 is older than 7"):
        edgefl.load(onnx_model(PATTERNS["torch_gemm"], opset=6))


def test_initializer_must_agree_with_its_declared_input():
    proto = onnx_model(PATTERNS["no_bias_log_softmax"])
    proto.graph.input.append(helper.make_tensor_value_info("W", onnx.TensorProto.FLOAT, [3, 6]))
    with pytest.raises(ModelError, match=r"initializer 'W' is \(6, 3\), its declared shape \(3, 6\)"):
        edgefl.load(proto)


def test_external_weights_are_refused(tmp_path):
    proto = onnx_model(PATTERNS["no_bias_log_softmax"])
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    with pytest.raises(ModelError, match="initializer 'W' lies in another file"):
        edgefl.load(tmp_path / "m.onnx")


def test_external_constant_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(np.ones(18, np.float32).tobytes())
    proto = onnx_model(HEAD + "{ W = Constant<value = float[6,3] {1}>() y = MatMul(x, W) }")
    tensor = proto.graph.node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    with pytest.raises(ModelError, match="Constant 'W' lies in another file"):
        edgefl.load(proto)


def test_damaged_bytes_never_crash():
    """Whatever is flipped: a model that works, or an EdgeFL error."""
    source, rng = onnx_model(PATTERNS["torch_flatten_chain"]).SerializeToString(), np.random.default_rng(4)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(source)
        for at in rng.integers(0, len(source), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            edgefl.load(bytes(damaged[: rng.integers(1, len(source) * 4)]))
        except edgefl.EdgeFLError as error:
            assert str(error)
            refused += 1
    assert refused > 500
