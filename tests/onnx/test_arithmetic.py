"""Elementwise ops and arithmetic: what they compute, and what of them trains."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_files import assert_computes, onnx_model, ops
from plan_reference import predict

import edgefl
from edgefl.errors import ModelError, UsageError

HEAD = "(float[N,6] x) => (float[N,3] y) <float[6,3] W, "
POSITIVE = "p = Softplus(h) "
POINTWISE = {
    "abs": "y = Abs(h)",
    "clip": "y = Clip(h, low, high)",
    "clip_above": "y = Clip(h, , high)",
    "elu": "y = Elu<alpha=0.5>(h)",
    "erf": "y = Erf(h)",
    "exp": "y = Exp(h)",
    "gelu_decomposed": "a = Div(h, two) b = Erf(a) c = Add(b, high) d = Mul(h, c) y = Mul(d, low)",
    "hard_sigmoid": "y = HardSigmoid<alpha=0.3>(h)",
    "hard_swish": "y = HardSwish(h)",
    "hard_swish_decomposed": "a = HardSigmoid<alpha=0.16666667>(h) y = Mul(h, a)",
    "leaky_relu": "y = LeakyRelu<alpha=0.2>(h)",
    "log": POSITIVE + "y = Log(p)",
    "neg": "y = Neg(h)",
    "pow": POSITIVE + "y = Pow(p, two)",
    "reciprocal": POSITIVE + "y = Reciprocal(p)",
    "sigmoid_linear_unit": "s = Sigmoid(h) y = Mul(h, s)",
    "softplus": "y = Softplus(h)",
    "sqrt": POSITIVE + "y = Sqrt(p)",
    "sum": "a = Relu(h) b = Tanh(h) y = Sum(a, b, h)",
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_agrees_with_onnxruntime(name):
    text = (
        f"{HEAD} float low = {{-0.5}}, float high = {{1}}, float two = {{2}}> {{ h = MatMul(x, W) {POINTWISE[name]} }}"
    )
    assert_computes(edgefl.load(onnx_model(text), loss="mse"))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_agrees_with_onnxruntime(approximate):
    text = f'{HEAD} float z = {{0}}> {{ h = MatMul(x, W) y = Gelu<approximate="{approximate}">(h) }}'
    assert_computes(edgefl.load(onnx_model(text, opset=20)))


def test_decomposed_hard_swish_is_one_op():
    model = edgefl.load(
        onnx_model(f"{HEAD} float z = {{0}}> {{ h = MatMul(x, W) {POINTWISE['hard_swish_decomposed']} }}")
    )
    assert ops(model) == ["dense", "hard_swish"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("operands", ["r, s", "s, r"])
@pytest.mark.parametrize("shape", ["3", "1,3", "1"])
def test_constant_on_either_side(op, operands, shape):
    text = f"{HEAD} float[{shape}] s> {{ h = MatMul(x, W) r = Sigmoid(h) y = {op}({operands}) }}"
    model = assert_computes(edgefl.load(onnx_model(text), loss="mse"))
    assert model.plan.params[1].trainable is (shape != "1")
    assert model.plan.nodes[-1].ints == [int(operands[0] == "s")]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize(
    "scale", ["float[4,1,1] s", "float[1,4,1,1] s", "float[5,3] s", "float[4,5,3] s", "float[3] s"]
)
def test_constants_follow_the_axes_of_an_image(op, scale):
    """(C, 1, 1) after a Conv is the bias if it is added; everything else is an op of its own."""
    text = f"(float[N,2,5,3] x) => (float[N,4,5,3] y) <float[4,2,1,1] W, {scale}> {{ c = Conv(x, W) y = {op}(c, s) }}"
    model = assert_computes(edgefl.load(onnx_model(text), loss="mse"))
    channels = op == "Add" and "4,1,1" in scale
    assert (op.lower() in ops(model)) is not channels


@pytest.mark.parametrize("other", ["t = ReduceMean<axes=[2,3]>(c)", "t = ReduceMean<axes=[1]>(c)", "t = Relu(c)"])
def test_two_values_broadcast(other):
    text = f"(float[N,2,5,3] x) => (float[N,4,5,3] y) <float[4,2,1,1] W> {{ c = Conv(x, W) {other} s = Sigmoid(t)"
    for order in ("c, s", "s, c"):
        assert_computes(edgefl.load(onnx_model(f"{text} y = Div({order}) }}"), loss="mse"))


def test_what_is_done_to_the_data_does_not_train():
    text = "(float[N,6] x) => (float[N,3] y) <float[6] mean, float[6] std, float[6,3] W, float[3] s>"
    model = edgefl.load(onnx_model(text + "{ a = Sub(x, mean) b = Div(a, std) h = MatMul(b, W) y = Mul(h, s) }"))
    assert_computes(model)
    assert [(p.name, p.trainable) for p in model.plan.params] == [
        ("W", True),
        ("s", True),
        ("mean", False),
        ("std", False),
    ]


def test_constant_nodes_and_computed_numbers_do_not_train():
    text = HEAD + "float[3] s> { h = MatMul(x, W) c = Constant<value = float[3] {1,2,3}>() r = Relu(h) a = Mul(r, c)"
    model = assert_computes(edgefl.load(onnx_model(text + " t = Mul(s, s) y = Add(a, t) }"), loss="mse"))
    assert [p.trainable for p in model.plan.params] == [True, False, False]


def test_dropout_trains_and_predicts_without():
    text = HEAD + "float r = {0.25}> { h = MatMul(x, W) y = Dropout(h, r) }"
    model = assert_computes(edgefl.load(onnx_model(text)))
    assert [(n.op, n.floats) for n in model.plan.nodes] == [("dense", []), ("dropout", [0.25])]
    assert ops(edgefl.load(onnx_model(text.replace("0.25", "0")))) == ["dense"]


def test_softmax_inside_the_net_is_an_op():
    text = HEAD + "float[3,3] V> { h = MatMul(x, W) s = Softmax(h) y = MatMul(s, V) }"
    assert ops(assert_computes(edgefl.load(onnx_model(text)))) == ["dense", "softmax", "dense"]


DEEP = (
    "(float[N,6] x) => (float[N,3] y) <float[6,4] body__1__W, float[4] body__1__g, float[4] body__1__b,"
    " float[4] body__1__m, float[4] body__1__v = {1,2,3,4}, float[4,3] head__W, float[3] head__b>"
    "{ h = MatMul(x, body__1__W) n = BatchNormalization(h, body__1__g, body__1__b, body__1__m, body__1__v) r = Relu(n)"
    " y = Gemm(r, head__W, head__b) }"
)


def dotted(text: str) -> onnx.ModelProto:
    """The graph with dots in its names, which ONNX's text format can't have."""
    proto = onnx_model(text)
    for tensor in proto.graph.initializer:
        tensor.name = tensor.name.replace("__", ".")
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("__", ".") for name in names]
    return proto


@pytest.mark.parametrize("pattern", ["body", "body.1", "body.*", "*.1.*"])
def test_frozen_params_are_state_at_the_tail(pattern):
    model = edgefl.load(dotted(DEEP), freeze=[pattern])
    assert [(p.name, p.trainable) for p in model.plan.params][:3] == [
        ("head.W", True),
        ("head.b", True),
        ("body.1.W", False),
    ]
    assert ops(model) == ["dense", "mul", "add", "relu", "dense"], "frozen statistics are plain numbers"
    assert model.state.size == 24 + 8
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    whole = edgefl.load(dotted(DEEP))
    np.testing.assert_allclose(predict(model.plan, model.params, x), predict(whole.plan, whole.params, x), atol=1e-6)
    after = model.params.copy()
    after[: model.plan.num_trainable] += 1
    assert (edgefl.load(model.to_bytes(after), freeze=[pattern]).params == after).all()


def test_frozen_scale_alone_leaves_batch_norm_training():
    model = edgefl.load(dotted(DEEP), freeze=["body.1.g"])
    assert "batch_norm" in ops(model)
    assert [p.name for p in model.plan.params if not p.trainable] == ["body.1.g", "body.1.m", "body.1.v"]


def test_freezing_nothing_or_everything_is_refused():
    with pytest.raises(UsageError, match=r"freeze='tail' matches no weight of the model"):
        edgefl.load(dotted(DEEP), freeze=["tail"])
    with pytest.raises(UsageError, match=r"freeze='bod' matches"):
        edgefl.load(dotted(DEEP), freeze=["bod"])
    with pytest.raises(ModelError, match="nothing to train"):
        edgefl.load(dotted(DEEP), freeze=["*"])


def test_merged_initializers_are_frozen_by_the_name_they_had():
    """torch stores equal tensors once and gives the others their names through Identity."""
    text = "(float[N,3] x) => (float[N,3] y) <float[3,3] a__W>"
    walk = "{ b__W = Identity(a__W) h = MatMul(x, a__W) y = MatMul(h, b__W) }"
    model = edgefl.load(dotted(text + walk), freeze=["b"])
    assert [(p.name, p.trainable) for p in model.plan.params] == [("a.W", True), ("a.W.2", False)]
    after = model.params.copy()
    after[:9] += 1
    saved = edgefl.load(model.to_bytes(after))
    assert (saved.params == after).all()
