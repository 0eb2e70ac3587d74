"""What is not trained is refused, with the node's name, its op, and what would help; no file crashes the importer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_files import onnx_model

import edgefl
from edgefl.errors import ModelError

HEAD = "(float[N,6] x) => (float[N,3] y)"
IMAGE = "(float[N,2,6,6] x) => (float[N,3,A,B] y)"
SERIES = "(float[N,5,4] x) => (float[N,1,3] y) <float[1,12,4] W, float[1,12,3] R, float[1,9] P>"
NO_BIAS = HEAD + "<float[6,3] W> { h = MatMul(x, W) y = LogSoftmax<axis=1>(h) }"
CHAIN = (
    "(float[N,2,4,4] x) => (float[N,3] y) <float[5,2,3,3] W, float[20,3] V, float[20] g, float[20] b,"
    " int64 zero = {0}, int64[1] a = {0}, int64[1] rest = {-1}>"
    "{ c = Conv(x, W) r = Relu(c) s = Shape(r) n = Gather<axis=0>(s, zero) u = Unsqueeze(n, a)"
    " t = Concat<axis=0>(u, rest) f = Reshape(r, t) m = Mul(f, g) z = Add(m, b) y = MatMul(z, V) }"
)
REFUSED = {
    "quantized": (
        HEAD + "<float[6,3] W, float[1] s> { [q] V = onnx.brevitas.BipolarQuant(W, s) y = MatMul(x, V) }",
        "node 'q' (onnx.brevitas.BipolarQuant)",
    ),
    "float16": (HEAD + "<float16[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' is float16"),
    "double": (HEAD + "<double[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' is float64"),
    "int8": (HEAD + "<int8[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' is int8"),
    "computed_weight": (
        HEAD + "<int8[6,3] W> { V = Cast<to=1>(W) [m] y = MatMul(x, V) }",
        "node 'm' (MatMul): its weight 'W' is computed",
    ),
    "not_finite": (HEAD + "<float[6,3] W> { [m] y = MatMul(x, W) }", "node 'm' (MatMul): its weight 'W' holds NaN"),
    "left_constant": ("(float[N,6] x) => (float[3,6] y) <float[3,4] W> { [m] y = MatMul(W, x) }", "node 'm' (MatMul)"),
    "wrong_size": (
        HEAD + "<float[5,3] W> { [m] y = MatMul(x, W) }",
        "node 'm' (MatMul): weight (5, 3) does not fit an input (N, 6)",
    ),
    "samples_in_features": (
        HEAD + "<float[6,3] W> { f = Flatten<axis=0>(x) [m] y = MatMul(f, W) }",
        "node 'm' (MatMul): weight (6, 3) does not fit an input (1, 6N)",
    ),
    "trans_a": (HEAD + "<float[6,3] W> { [g] y = Gemm<transA=1>(x, W) }", "node 'g' (Gemm): it mixes samples"),
    "alpha_zero": (HEAD + "<float[6,3] W> { [g] y = Gemm<alpha=0.0>(x, W) }", "node 'g' (Gemm): alpha=0.0"),
    "gathered_twice": (
        HEAD + "<float[6,3] W, int64[3] i = {0,0,2}> { V = Gather<axis=1>(W, i) [m] y = MatMul(x, V) }",
        "node 'm' (MatMul): its weight 'W' is computed",
    ),
    "mixing_reshape": (
        "(float[N,2,3] x) => (float[M,3] y) <float[3,3] W, int64[2] s = {6,-1}>"
        "{ [r] f = Reshape(x, s) y = MatMul(f, W) }",
        "node 'r' (Reshape): reshaping (N, 2, 3) to (6, ",
    ),
    "label_trained_through": (
        HEAD + "<float[6,3] W, float[1,3] V> { h = MatMul(x, W) k = ArgMax<axis=1>(h) [m] y = MatMul(k, V) }",
        "node 'm' (MatMul): it reads a label",
    ),
    "two_heads": (
        "(float[N,6] x) => (float[N,3] y, float[N,2] z) <float[6,3] W, float[6,2] V>"
        "{ y = MatMul(x, W) z = MatMul(x, V) }",
        "no output depends on all weights",
    ),
    "two_inputs": (
        "(float[N,6] x, float[2,6] w) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }",
        "input 'w' has no axis of a free number of samples as 'x' has",
    ),
    "tokens": ("(int64[N,6] x) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }", "computes with whole numbers"),
    "double_input": ("(double[N,6] x) => (double[N,3] y) <double[6,3] W> { y = MatMul(x, W) }", "'x' is not float32"),
    "dynamic_axis": ("(float[N,T,6] x) => (float[N,T,3] y) <float[6,3] W> { y = MatMul(x, W) }", "dynamic axis 1"),
    "no_shape": ("(float x) => (float[3] y) <float[6,3] W> { y = MatMul(x, W) }", "input 'x' has shape ()"),
    "nothing_to_train": ("(float[N,6] x) => (float[N,6] y) { y = Relu(x) }", "nothing to train"),
    "unknown_tensor": (HEAD + "{ [m] y = MatMul(x, W) }", "node 'm' (MatMul) reads 'W', which nothing"),
    "cycle": (HEAD + "<float[6,6] W> { a = MatMul(z, W) z = Relu(a) [m] y = MatMul(z, W) }", "its own output"),
    "made_twice": (HEAD + "<float[6,3] W> { [m] y = MatMul(x, W) [n] y = MatMul(x, W) }", "'n' (MatMul): its output"),
    "transposed_conv": (
        IMAGE + "<float[2,3,3,3] W> { [c] y = DeformConv(x, W, x) }",
        "node 'c' (DeformConv): this op",
    ),
    "volume": (
        "(float[N,2,3,3,3] x) => (float[N,1,1,1,1] y) <float[1,2,3,3,3] W> { [c] y = Conv(x, W) }",
        "node 'c' (Conv): its input is (N, 2, 3, 3, 3)",
    ),
    "groups": (
        IMAGE + "<float[3,2,3,3] W> { [c] y = Conv<group=2>(x, W) }",
        "node 'c' (Conv): weight (3, 2, 3, 3) in 2",
    ),
    "kernel": (
        IMAGE + "<float[3,2,3,3] W> { [c] y = Conv<kernel_shape=[2,2]>(x, W) }",
        "node 'c' (Conv): kernel_shape",
    ),
    "large_kernel": (IMAGE + "<float[3,2,7,7] W> { [c] y = Conv(x, W) }", "node 'c' (Conv): its window of 7"),
    "negative_pads": (
        IMAGE + "<float[3,2,3,3] W> { [c] y = Conv<pads=[-1,0,0,0]>(x, W) }",
        "node 'c' (Conv): auto_pad",
    ),
    "auto_pad": (
        IMAGE + '<float[3,2,3,3] W> { [c] y = Conv<auto_pad="SAME">(x, W) }',
        "node 'c' (Conv): auto_pad=SAME",
    ),
    "dilated_pool": (
        IMAGE + "<float[3,2,3,3] W> { c = Conv(x, W) [p] y = MaxPool<kernel_shape=[2,2], dilations=[99,9]>(c) }",
        "node 'p' (MaxPool): its window",
    ),
    "even_neighbours": (IMAGE + "<float[3,2,3,3] W> { c = Conv(x, W) [n] y = LRN<size=2>(c) }", "use an odd size"),
    "pool_of_padding": (
        IMAGE + "<float[3,2,3,3] W> { c = Conv(x, W) [p] y = MaxPool<kernel_shape=[2,2], pads=[2,2,2,2]>(c) }",
        "node 'p' (MaxPool): pads (2, 2, 2, 2)",
    ),
    "training_mode": (
        HEAD + "<float[6,3] W, float[3] g> { h = MatMul(x, W)"
        " [b] z, m, v = BatchNormalization<training_mode=1>(h, g, g, g, g) y = Add(z, m) }",
        "node 'b' (BatchNormalization): it was exported in training mode",
    ),
    "dropout_in_training": (
        HEAD + "<float[6,3] W, float r = {0.5}, bool t = {1}> { h = MatMul(x, W) [d] z, m = Dropout(h, r, t)"
        " c = Cast<to=1>(m) y = Add(z, c) }",
        "node 'd' (Dropout): it was exported in training mode",
    ),
    "no_sequence": (
        SERIES + "{ [l] y, h = LSTM<hidden_size=3>(x, W, R) }",
        "node 'l' (LSTM): its input (N, 5, 4) is no",
    ),
    "activations": (
        SERIES + '{ [l] y = LSTM<hidden_size=3, layout=1, activations=["Relu", "Tanh", "Tanh"]>(x, W, R) }',
        "node 'l' (LSTM): activations ['Relu', 'Tanh', 'Tanh']",
    ),
    "cell_clip": (SERIES + "{ [l] y = LSTM<layout=1, clip=1.0>(x, W, R) }", "node 'l' (LSTM): clip"),
    "peephole": (SERIES + "{ [l] y = LSTM<layout=1>(x, W, R, , , , , P) }", "node 'l' (LSTM): its peephole weights"),
    "cell_state": (
        SERIES + "{ [l] h, s, y = LSTM<layout=1>(x, W, R) }",
        "'l' (LSTM): its cell state alone",
    ),
    "reflected": (
        HEAD + '<float[8,3] W, int64[4] p = {0,6,0,1}> { [p1] h = Pad<mode="reflect">(x, p) y = MatMul(h, W) }',
        "node 'p1' (Pad): mode=reflect",
    ),
    "mean_of_samples": (
        HEAD + "<float[6,3] W> { h = MatMul(x, W) [r] m = ReduceMean<axes=[0]>(h) y = Sub(h, m) }",
        "node 'r' (ReduceMean): it mixes samples",
    ),
    "samples_times_samples": (
        "(float[N,6] x) => (float[N,N] y) <float[6,3] W>{ h = MatMul(x, W) t = Transpose(h) [m] y = MatMul(h, t) }",
        "node 'm' (MatMul): it mixes samples",
    ),
    "power_of_a_value": (
        HEAD + "<float[6,3] W> { h = MatMul(x, W) [p] y = Pow(h, h) }",
        "node 'p' (Pow): its exponent is no single number",
    ),
    "huge_pads": (
        HEAD + "<float[6,3] W, int64[4] p = {0,0,0,1099511627776}> { h = MatMul(x, W) [p1] y = Pad(h, p) }",
        "node 'p1' (Pad): makes samples of shape (1099511627779,)",
    ),
    "huge_norm": (
        "(float[N,16777216] x) => (float[N,16777216] y) <float[1] g> { [l] y = LayerNormalization(x, g) }",
        "node 'l' (LayerNormalization): its scale has shape (1,) for 16777216 numbers",
    ),
    "huge_constant": (
        HEAD + "<int64[2] s = {16777216,16777216}> { [c] W = ConstantOfShape(s) y = MatMul(x, W) }",
        "node 'c' (ConstantOfShape): makes a constant of 281474976710656 elements",
    ),
    "infinite_mask": (
        HEAD + "<float[6,3] W, float[3] m> { h = MatMul(x, W) n = Neg(m) [a] y = Sub(h, n) }",
        "node 'a' (Sub): its constant holds NaN or Inf",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_where_and_why(name):
    text, expected = REFUSED[name]
    arrays = {
        "float16": {"W": np.ones((6, 3), np.float16)},
        "double": {"W": np.ones((6, 3))},
        "int8": {"W": np.ones((6, 3), np.int8)},
        "computed_weight": {"W": np.ones((6, 3), np.int8)},
        "infinite_mask": {"m": np.array([0, np.inf, 0], np.float32)},
        "not_finite": {"W": np.full((6, 3), np.nan, np.float32)},
    }.get(name, {})
    with pytest.raises(ModelError) as refusal:
        edgefl.load(onnx_model(text, **arrays))
    assert expected in str(refusal.value)
    assert ": " in str(refusal.value), "the text must go on with what to do"


def test_binarized_file_is_refused_by_name(shared):
    with pytest.raises(
        ModelError, match=r"fc_1layer.onnx: node '.*BipolarQuant' \(onnx.brevitas.BipolarQuant\): this op"
    ):
        edgefl.load(shared / "models" / "hls4ml_bnn_model_fc_1layer.onnx")


def test_opset_before_broadcasting_is_refused():
    with pytest.raises(ModelError, match="opset 6 is older than 7"):
        edgefl.load(onnx_model(NO_BIAS, opset=6))


def test_initializer_must_agree_with_its_declared_input():
    proto = onnx_model(NO_BIAS)
    proto.graph.input.append(helper.make_tensor_value_info("W", onnx.TensorProto.FLOAT, [3, 6]))
    with pytest.raises(ModelError, match=r"initializer 'W' is \(6, 3\), its declared shape \(3, 6\)"):
        edgefl.load(proto)


def test_external_weights_are_refused(tmp_path):
    proto = onnx_model(NO_BIAS)
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
    source, rng = onnx_model(CHAIN).SerializeToString(), np.random.default_rng(4)
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


@pytest.mark.parametrize("name", ["batch", "x", "W", "m", "MatMul", "y"])
def test_a_name_that_is_not_utf_8(name: str) -> None:
    model = onnx_model("(float[batch,6] x) => (float[batch,3] y) <float[6,3] W> { [m] y = MatMul(x, W) }")
    written = bytes([len(name)]) + name.encode()
    damaged = model.SerializeToString().replace(written, bytes([len(name)]) + b"\xff" * len(name))
    with pytest.raises(ModelError, match=r"not an ONNX file|is not UTF-8, so the file is damaged: export the model"):
        edgefl.load(damaged)
