"""LSTM, GRU, RNN and embeddings: every form that exporters write, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import assert_computes, moved, onnx_model, ops

import edgefl
from edgefl.errors import ModelError, UsageError
from edgefl.onnx.evaluate import OnnxEvaluator

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
READ = {
    # (T, D, N, H) -> (N, T, D H) as torch writes it, the last state (D, N, H), and both
    "sequence": "s = Transpose<perm=[2,0,1,3]>(Y) y = Reshape(s, flat)",
    "last": "s = Transpose<perm=[1,0,2]>(Yh) y = Reshape(s, flat_last)",
    "both": "p = Transpose<perm=[2,0,1,3]>(Y) q = Transpose<perm=[1,0,2]>(Yh) u = Unsqueeze(q, one) y = Mul(p, u)",
    "step": "s = Transpose<perm=[2,0,1,3]>(Y) y = Gather<axis=1>(s, last)",
}


def model_of(op: str, direction: str, read: str, bias: bool = True, extra: str = "") -> onnx.ModelProto:
    """x (N, 5, 4) through one layer of 3 hidden units."""
    d, rows = DIRECTIONS[direction], 3 * GATES[op]
    return onnx_model(
        f"(float[N,5,4] x) => (float y) <float[{d},{rows},4] W, float[{d},{rows},3] R, float[{d},{2 * rows}] B,"
        f" int64[3] flat = {{0,5,{3 * d}}}, int64[2] flat_last = {{0,{3 * d}}}, int64[1] one = {{1}},"
        f" int64 last = {{4}}> {{ X = Transpose<perm=[1,0,2]>(x)"
        f' Y, Yh = {op}<hidden_size=3, direction="{direction}"{extra}>(X, W, R{", B" if bias else ""}) {READ[read]} }}'
    )


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("read", READ)
def test_agrees_with_onnxruntime(op, direction, read):
    assert_computes(edgefl.load(model_of(op, direction, read), loss="mse"))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gru_resets_after_the_product(direction):
    model = edgefl.load(model_of("GRU", direction, "sequence", extra=", linear_before_reset=1"), loss="mse")
    node = assert_computes(model).plan.nodes[0]
    assert (node.op, node.ints) == ("gru", [3, list(DIRECTIONS).index(direction), 0, 1])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rnn_of_relu(direction):
    named = ", ".join(['"Relu"'] * DIRECTIONS[direction])
    model = edgefl.load(model_of("RNN", direction, "both", extra=f", activations=[{named}]"), loss="mse")
    assert assert_computes(model).plan.nodes[0].ints[3] == 1


def stateful(op: str, direction: str, states: str, more: str = "", body: str = "") -> onnx.ModelProto:
    """x (N, 5, 4), every step of it, from `states`."""
    d, rows = DIRECTIONS[direction], 3 * GATES[op]
    return onnx_model(
        f"(float[N,5,4] x) => (float y) <float[{d},{rows},4] W, float[{d},{rows},3] R, float[{d},{2 * rows}] B,"
        f" float[{d},1,3] h0, float[{d},1,3] c0, int64 first = {{0}}, int64[1] zero = {{0}}, int64[1] d = {{{d}}},"
        f" int64[1] three = {{3}}, int64[3] flat = {{0,5,{3 * d}}}{more}>"
        "{ X = Transpose<perm=[1,0,2]>(x) s = Shape(x) n = Gather(s, first) u = Unsqueeze(n, zero)"
        " e = Concat<axis=0>(d, u, three) h = Expand(h0, e) c = Expand(c0, e) z = ConstantOfShape(e)" + body +
        f' Y, Yh = {op}<hidden_size=3, direction="{direction}">(X, W, R, B, {states})'
        " t = Transpose<perm=[2,0,1,3]>(Y) y = Reshape(t, flat) }"
    )  # fmt: skip


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("op", "states", "trained"),
    [("RNN", ", h", ["h0"]), ("GRU", ", h", ["h0"]), ("LSTM", ", h, c", ["h0", "c0"]), ("LSTM", ", h, z", ["h0"]),
     ("LSTM", ", h", ["h0"]), ("LSTM", ", z, c", ["c0"]), ("GRU", ", z", [])],
)  # fmt: skip
def test_initial_states_are_trained(op, direction, states, trained):
    """PyTorch: parameters that are expanded to the number of samples."""
    model = assert_computes(edgefl.load(stateful(op, direction, states), loss="mse"))
    assert [p.name for p in model.plan.params if p.trainable] == ["W", "R", "B", "B.R", *trained]
    after = moved(model)
    saved = onnx.ModelProto.FromString(model.to_bytes(after))
    stored = {t.name: numpy_helper.to_array(t) for t in saved.graph.initializer}
    size = 3 * DIRECTIONS[direction]
    start = sum(param.size for param in model.plan.params[:4])
    for at, name in enumerate(trained):
        np.testing.assert_array_equal(stored[name].ravel(), after[start + at * size : start + (at + 1) * size])


@pytest.mark.parametrize(
    ("states", "more", "says"),
    [
        (", X", "", "its initial state is computed from the input"),
        ("l", ", int32[2] l = {5, 4}", "only sequences of all 5 steps"),
        (", v", ", float[1,2,3] v = {1,2,3,1,2,4}", "differs between samples"),
        (", v", ", float[1,1,2] v", "does not fit 3 units"),
    ],
)
def test_states_that_are_not_trained_are_refused(states, more, says):
    with pytest.raises(ModelError, match=rf"GRU\): .*{says}"):
        edgefl.load(stateful("GRU", "forward", states, more), loss="mse")


def test_lengths_of_whole_sequences_change_nothing():
    plain = edgefl.load(stateful("GRU", "forward", ""), loss="mse")
    given = edgefl.load(stateful("GRU", "forward", "l", ", int32[2] l = {5, 5}"), loss="mse")
    assert given.plan.nodes == plain.plan.nodes


def test_last_state_alone_keeps_no_sequence():
    model = edgefl.load(model_of("LSTM", "forward", "last"), loss="mse")
    assert [(n.op, n.ints) for n in model.plan.nodes] == [("lstm", [3, 0, 1])]
    assert [p.shape for p in model.plan.params] == [[1, 4, 12], [1, 3, 12], [1, 12], [1, 12]]


@pytest.mark.parametrize("op", GATES)
def test_missing_bias_is_zero_and_not_trained(op):
    model = assert_computes(edgefl.load(model_of(op, "forward", "last", bias=False), loss="mse"))
    assert [p.trainable for p in model.plan.params] == [True, True, False, False]
    assert not model.state.any()


def test_both_biases_are_written_back():
    model = edgefl.load(model_of("LSTM", "bidirectional", "last"), loss="mse")
    after = model.params + np.arange(model.params.size, dtype=np.float32)
    saved = onnx.ModelProto.FromString(model.to_bytes(after))
    stored = next(numpy_helper.to_array(t) for t in saved.graph.initializer if t.name == "B")
    np.testing.assert_array_equal(stored, after[-48:].reshape(2, 2, 12).transpose(1, 0, 2).reshape(2, 24))


def test_biases_that_two_layers_share_are_split_together():
    proto = onnx_model(
        "(float[N,5,3] x) => (float y) <float[1,12,3] W, float[1,12,3] V, float[1,12,3] R, float[1,12,3] S,"
        " float[1,24] B, int64[1] a = {1}>"
        "{ X = Transpose<perm=[1,0,2]>(x) P = LSTM<hidden_size=3>(X, W, R, B) Q = Squeeze(P, a)"
        " Y, Yh = LSTM<hidden_size=3>(Q, V, S, B) y = Transpose<perm=[1,0,2]>(Yh) }"
    )
    for untie, count in ([], 1), (["B"], 2):
        model = assert_computes(edgefl.load(proto, loss="mse", untie=untie))
        saved = onnx.ModelProto.FromString(model.to_bytes(moved(model)))
        assert sum(tuple(t.dims) == (1, 24) for t in saved.graph.initializer) == count


def test_layout_with_samples_first():
    proto = onnx_model(
        "(float[N,5,4] x) => (float y) <float[1,12,4] W, float[1,12,3] R>"
        "{ Y, Yh = LSTM<hidden_size=3, layout=1>(x, W, R) y = Relu(Y) }"
    )
    model = edgefl.load(proto, loss="mse")  # onnxruntime has no layout=1
    assert model.output_shape == (5, 1, 3)
    assert ops(model) == ["lstm", "relu", "reshape"]


def test_initial_state_of_zeros_for_any_number_of_samples():
    """torch: zeros of (D, N, H), N read off the input's shape."""
    proto = onnx_model(
        "(float[N,5,4] x) => (float y) <float[1,12,4] W, float[1,12,3] R, float[1,24] B, int64 first = {0},"
        " int64[1] one = {1}, int64[1] three = {3}, int64[1] zero = {0}>"
        "{ X = Transpose<perm=[1,0,2]>(x) s = Shape(x) n = Gather(s, first) u = Unsqueeze(n, zero)"
        " d = Concat<axis=0>(one, u, three) h = ConstantOfShape(d) c = Expand(h, d)"
        " Y, Yh = LSTM<hidden_size=3>(X, W, R, B, , h, c) y = Squeeze(Yh, zero) }"
    )
    assert_computes(edgefl.load(proto, loss="mse"))


def test_weights_built_in_the_graph_are_written_back():
    """torch without constant folding: ifgo rows sliced and joined into iofc, biases concatenated."""
    rows = {name: f"r{at}" for at, name in enumerate("ifgo")}
    slices = " ".join(
        f"{part} = Slice(w, a{at}, a{at + 1}, z) u{part} = Slice(u, a{at}, a{at + 1}, z) b{part} = Slice(b, a{at},"
        f" a{at + 1}, z) c{part} = Slice(c, a{at}, a{at + 1}, z)"
        for at, part in enumerate(rows.values())
    )
    order = [rows[name] for name in "iofg"]
    joined = {
        "W0": ", ".join(order),
        "R0": ", ".join(f"u{part}" for part in order),
        "B0": ", ".join([f"b{part}" for part in order] + [f"c{part}" for part in order]),
    }
    bounds = ", ".join(f"int64[1] a{at} = {{{3 * at}}}" for at in range(5))
    proto = onnx_model(
        f"(float[N,5,4] x) => (float y) <float[12,4] w, float[12,3] u, float[12] b, float[12] c, int64[1] z = {{0}},"
        f" {bounds}> {{ X = Transpose<perm=[1,0,2]>(x) {slices} "
        + " ".join(f"{name} = Concat<axis=0>({parts})" for name, parts in joined.items())
        + " W = Unsqueeze(W0, z) R = Unsqueeze(R0, z) B = Unsqueeze(B0, z)"
        " Y, Yh = LSTM<hidden_size=3>(X, W, R, B) y = Squeeze(Yh, z) }"
    )
    model = assert_computes(edgefl.load(proto, loss="mse"))
    assert model.plan.num_trainable == 12 * 4 + 12 * 3 + 24


TOKENS = (
    "(int64[N,6] x) => (float[N,10] y) <float[10,4] E, float[1,12,4] W, float[1,12,3] R, float[1,24] B, float[3,10] V,"
    " int64[1] z = {0}> { e = Gather(E, x) X = Transpose<perm=[1,0,2]>(e)"
    " Y, Yh = LSTM<hidden_size=3>(X, W, R, B) h = Squeeze(Yh, z) y = MatMul(h, V) }"
)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_tokens_are_looked_up(dtype):
    model = assert_computes(edgefl.load(onnx_model(TOKENS.replace("int64[N,6]", f"{dtype}[N,6]"))))
    assert (model.plan.input_dtype, model.input_dtype) == ("int64", np.dtype(dtype))
    assert ops(model) == ["embedding", "lstm", "dense"]
    assert model.plan.params[0].shape == [10, 4]


def test_computed_tokens_are_refused():
    text = "(float[N,6] x) => (float[N,6,4] y) <float[10,4] E> { t = Relu(x) [g] y = Gather(E, t) }"
    with pytest.raises(ModelError, match=r"node 'g' \(Gather\): looks up axis 0"):
        edgefl.load(onnx_model(text))


def test_open_axis_is_refused_until_it_is_named(shared):
    path = shared / "models" / "onnx2c_lstm_k1_b1_r1.onnx"
    with pytest.raises(ModelError, match=r"dynamic axis 1 \(M1\): .*--dim M1=32"):
        edgefl.load(path)
    model = edgefl.load(path, dims={"M1": 6})
    assert (model.plan.input_shape, model.output_shape) == ([6, 5], (3,))


@pytest.mark.parametrize("dims", [{"M2": 6}, {"M1": 0}])
def test_size_for_no_open_axis_is_wrong_use(shared, dims):
    with pytest.raises(UsageError, match=r"dims (names|gives)"):
        edgefl.load(shared / "models" / "onnx2c_lstm_k1_b1_r1.onnx", dims=dims)


def test_steps_that_are_named_leave_the_samples_open(shared):
    """The first axis is then no axis of samples."""
    with pytest.raises(ModelError, match=r"its input \(N, 6, 5\) is no sequence"):
        edgefl.load(shared / "models" / "onnx2c_lstm_k1_b1_r1.onnx", dims={"N": 6})
    with pytest.raises(ModelError, match="axes T, U are open: name all of them in dims"):
        edgefl.load(onnx_model("(float[N,T,U] x) => (float y) <float[4,2] W> { y = MatMul(x, W) }"), dims={"N": 6})


TIME_FIRST = {
    "the last step": "(float[5,N,4] x) => (float y) <{W}, int64 last = {{4}}, float[3,2] V>"
    " {{ Y, Yh = {op}<hidden_size=3>(x, W, R, B) s = Squeeze(Y, one) l = Gather<axis=0>(s, last) y = MatMul(l, V) }}",
    "each step": "(float[5,N,4] x) => (float y) <{W}, float[3,2] V>"
    " {{ Y, Yh = {op}<hidden_size=3>(x, W, R, B) s = Squeeze(Y, one) y = MatMul(s, V) }}",
    "one sample": "(float[5,1,4] x) => (float y) <{W}, float[3,2] V>"
    " {{ Y, Yh = {op}<hidden_size=3>(x, W, R, B) s = Squeeze(Y, one) y = MatMul(s, V) }}",
}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("name", TIME_FIRST)
def test_steps_before_the_samples(op, name):
    """torch with batch_first=False: x (T, N, I) in the file, (n, T, I) for those who train."""
    rows = 3 * GATES[op]
    stored = f"float[1,{rows},4] W, float[1,{rows},3] R, float[1,{2 * rows}] B, int64[1] one = {{1}}"
    model = assert_computes(edgefl.load(onnx_model(TIME_FIRST[name].format(W=stored, op=op)), loss="mse"))
    assert model.plan.input_shape == [5, 4]
    assert model.output_shape == ((2,) if name == "the last step" else (5, 2))


def test_labels_of_each_step_before_the_samples():
    text = "(float[5,N,4] x) => (float y) <float[1,9,4] W, float[1,9,3] R, int64[1] one = {1}> "
    body = "{ Y, Yh = GRU<hidden_size=3>(x, W, R) s = Squeeze(Y, one) y = Softmax(s) }"
    model = edgefl.load(onnx_model(text + body))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 5, 4)).astype(np.float32), rng.integers(0, 3, (7, 5))
    ours = edgefl.Trainer(model.plan).evaluate(model.params, x, y)
    theirs = OnnxEvaluator(model).evaluate(model.params, x, y)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert ours.accuracy == theirs.accuracy


def test_tokens_of_steps_before_the_samples():
    text = "(int64[5,N] x) => (float y) <float[10,4] E, float[1,9,4] W, float[1,9,3] R> "
    body = "{ e = Gather(E, x) Y, Yh = GRU<hidden_size=3>(e, W, R) y = Relu(Yh) }"
    assert_computes(edgefl.load(onnx_model(text + body.replace("Relu(Yh)", "Squeeze(Yh)")), loss="mse"))


def test_a_cell_state_for_people_stays_in_the_file():
    text = "(float[N,5,4] x) => (float y, float c) <float[1,12,4] W, float[1,12,3] R, int64[1] z = {0}> "
    body = "{ X = Transpose<perm=[1,0,2]>(x) Y, Yh, c = LSTM<hidden_size=3>(X, W, R) y = Squeeze(Yh, z) }"
    assert_computes(edgefl.load(onnx_model(text + body), loss="mse"))
    with pytest.raises(ModelError, match="it reads a label or class probability"):
        edgefl.load(onnx_model(text + body.replace("Squeeze(Yh, z)", "Add(Yh, c)")), loss="mse")
