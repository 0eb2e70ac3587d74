"""Ops one by one, between two layers: the plan computes what onnxruntime does, before and after params have moved."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import assert_computes, onnx_model, ops
from torch_export import EXPORTS, TORCH

import edgefl
from edgefl.errors import ModelError

ROWS = "(float[N,6] x) => (float[N,3] y) <float[6,8] U, float[8,3] V, float[8] s, float[8] t, float one = {0.3}"
IMAGE = (
    "(float[N,3,4,4] x) => (float[N,2] y) <float[8,3,3,3] U, float[128,2] V, float[8] s, float[8] t,"
    " float[2] g, float[2] h"
)
BODIES = {
    "Celu": "Celu<alpha=1.3>(u)",
    "Cos": "Cos(u)",
    "Mish": "Mish(u)",
    "PRelu": "PRelu(u, s)",
    "PRelu_one": "PRelu(u, one)",
    "RMSNormalization": "RMSNormalization<axis=-1, epsilon=0.001>(u, s)",
    "Selu": "Selu(u)",
    "Shrink": "Shrink<lambd=0.2, bias=0.1>(u)",
    "Sin": "Sin(u)",
    "Softsign": "Softsign(u)",
    "ThresholdedRelu": "ThresholdedRelu<alpha=0.2>(u)",
    "LpNormalization": "LpNormalization<axis=-1, p=2>(u)",
    "LpNormalization_1": "LpNormalization<axis=1, p=1>(u)",
    "Max": "Max(u, s, t)",
    "Max_two": "Max(u, u2)",
    "Min": "Min(u, one)",
    "com.microsoft.Gelu": "com.microsoft.Gelu(u)",
    "com.microsoft.FastGelu": "com.microsoft.FastGelu(u, s)",
    "com.microsoft.BiasGelu": "com.microsoft.BiasGelu(u, s)",
    "com.microsoft.QuickGelu": "com.microsoft.QuickGelu<alpha=1.702>(u)",
    "com.microsoft.SkipLayerNormalization": "com.microsoft.SkipLayerNormalization<epsilon=0.001>(u, u2, s, t)",
    "SimplifiedLayerNormalization": "SimplifiedLayerNormalization<axis=-1, epsilon=0.001>(u, s)",
}
OPSETS = {"RMSNormalization": 23, "Mish": 18}


@pytest.mark.parametrize("name", BODIES)
def test_op_between_two_layers(name):
    second = "u2 = Sigmoid(u) " if "u2" in BODIES[name] else ""
    text = f"{ROWS}> {{ u = MatMul(x, U) {second}w = {BODIES[name]} y = MatMul(w, V) }}"
    assert_computes(edgefl.load(onnx_model(text, opset=OPSETS.get(name, 17)).SerializeToString()))


@pytest.mark.parametrize("name", ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Sum", "SumSquare"])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(name, keep):
    after = "w = Mul(u, r)" if keep else "a = Constant<value_ints=[1]>() q = Unsqueeze(r, a) w = Mul(u, q)"
    made = f"r = Reduce{name}<axes=[1], keepdims={keep}>(u) {after}"
    text = f"{ROWS}> {{ m = MatMul(x, U) u = Sigmoid(m) {made} y = MatMul(w, V) }}"
    opset = 11 if name == "Sum" else 17
    if name == "Sum":
        text = text.replace("a = Constant<value_ints=[1]>() q = Unsqueeze(r, a)", "q = Unsqueeze<axes=[1]>(r)")
    assert_computes(edgefl.load(onnx_model(text, opset=opset).SerializeToString()))


NORMS = {
    "instance": "InstanceNormalization<epsilon=0.01>(c, s, t)",
    "groups_18": "GroupNormalization<num_groups=2, epsilon=0.01>(c, g, h)",
    "groups_21": "GroupNormalization<num_groups=2, epsilon=0.01>(c, s, t)",
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("turned", [False, True])
def test_norms_of_channels(name, turned):
    """Turned: the channels are the rows of the image, so that they are not the last in memory."""
    turn = "d = Transpose<perm=[0,2,1,3]>(e) " if turned else ""
    body = NORMS[name].replace("(c,", "(d,") if turned else NORMS[name]
    layers = "c = Conv<pads=[1,1,1,1]>(x, U) " if not turned else "e = Conv<pads=[1,1,1,1]>(x, W) "
    weights = ", float[4,3,3,3] W, float[64,2] Z" if turned else ""
    text = f"{IMAGE}{weights}> {{ {layers}{turn}n = {body} f = Flatten(n) y = MatMul(f, {'Z' if turned else 'V'}) }}"
    arrays = {key: np.linspace(0.5, 1.5, 4).astype(np.float32) for key in "st"} if turned else {}
    if turned:
        text = text.replace("float[8] s, float[8] t", "float[4] s, float[4] t")
    opset = {"instance": 17, "groups_18": 18, "groups_21": 21}[name]
    model = assert_computes(edgefl.load(onnx_model(text, opset=opset, **arrays).SerializeToString()), tolerance=1e-4)
    assert ops(model).count("group_norm") == 1


@pytest.mark.parametrize("flags", ["", "alpha=0.5", "transB=1", "transA=1", "transA=1, transB=1, alpha=2.0"])
def test_fused_products(flags):
    """Of two activations (N, 4, 4), and of one and a weight."""
    text = (
        "(float[N,4,4] x) => (float[N,4,3] y) <float[4,4] U, float[4,4] W, float[4,3] V>"
        f"{{ u = MatMul(x, U) p = com.microsoft.FusedMatMul<{flags}>(u, x) q = com.microsoft.FusedMatMul<{flags}>(p, W)"
        " y = MatMul(q, V) }"
    ).replace("<>", "")
    assert_computes(edgefl.load(onnx_model(text).SerializeToString()), tolerance=1e-4)


def test_gemm_without_a_third_input_ignores_its_factor():
    text = f"{ROWS}> {{ u = Gemm<beta=0.0>(x, U) w = Gemm<beta=0.0, alpha=2.0>(u, V) y = Relu(w) }}"
    assert_computes(edgefl.load(onnx_model(text).SerializeToString()))
    text = f"{ROWS}> {{ u = Gemm<beta=0.0>(x, U, s) y = MatMul(u, V) }}"
    model = assert_computes(edgefl.load(onnx_model(text).SerializeToString()))
    assert "s" not in [param.name for param in model.plan.params]


def test_fused_gemm():
    text = f'{ROWS}> {{ u = com.microsoft.FusedGemm<activation="Relu">(x, U, s) y = MatMul(u, V) }}'
    assert ops(assert_computes(edgefl.load(onnx_model(text).SerializeToString()))) == ["dense", "relu", "dense"]


@pytest.mark.parametrize("test", ["Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
def test_where_two_activations_are_compared(test):
    text = (
        f"{ROWS}> {{ u = MatMul(x, U) v = Mul(u, s) c = {test}(u, v) n = Not(c) a = Where(c, u, v) k = Greater(u, one)"
        " b = Where(n, a, v) d = Where(k, one, b) y = MatMul(d, V) }"
    )
    model = edgefl.load(onnx_model(text).SerializeToString())
    assert_computes(model)
    assert (ops(model).count("select"), ops(model).count("keep")) == (2, 1)


def test_slope_of_one_number_is_trained():
    text = f"{ROWS}> {{ u = MatMul(x, U) w = PRelu(u, one) y = MatMul(w, V) }}"
    model = edgefl.load(onnx_model(text).SerializeToString())
    assert {param.name: param.trainable for param in model.plan.params}["one"]


def masked(mask: np.ndarray, nodes: str):
    weights = "<float[4,4] U, float[4,4] m, float[4,3] V>"
    text = f"(float[N,4,4] x) => (float[N,4,3] y) {weights} {{ u = MatMul(x, U) {nodes} y = MatMul(p, V) }}"
    return edgefl.load(onnx_model(text, m=np.float32(mask)).SerializeToString())


def test_minus_infinity_is_for_a_softmax_that_sees_something():
    later = np.triu(np.full((4, 4), -np.inf), 1)
    model = masked(later, "a = Add(u, m) p = Softmax(a)")
    assert ops(assert_computes(model)).count("mask") == 1
    trainer, rng = edgefl.Trainer(model.plan), np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4, 4)).astype(np.float32), rng.integers(0, 3, (5, 4))
    assert np.isfinite(trainer.gradient(model.params, x, y)).all()
    assert np.isfinite(trainer.fit(model.params, x, y, epochs=3, batch_size=2, lr=0.5).delta).all()
    for mask, nodes, says in [
        (np.full((4, 4), -np.inf), "a = Add(u, m) p = Softmax(a)", "leaves nothing of a row"),
        (later, "a = Add(u, m) p = Softmax<axis=1>(a)", ""),
        (np.tril(np.full((4, 4), -np.inf)), "a = Add(u, m) p = Softmax(a)", "leaves nothing of a row"),
        (later, "a = Add(u, m) p = Exp(a)", "minus infinity"),
        (later, "a = Add(u, m) q = Softmax(a) p = Add(q, a)", "minus infinity"),
        (later, "p = Add(u, m)", "minus infinity"),
    ]:
        if not says:
            assert_computes(masked(mask, nodes))
            continue
        with pytest.raises(ModelError, match=says):
            masked(mask, nodes)


def test_hard_shrink_as_the_older_exporter_writes_it():
    text = f"""{ROWS}, float half = {{0.5}}, float minus = {{-0.5}}, float zero = {{0.0}}> {{ u = MatMul(x, U)
        a = Greater(u, half) b = Less(u, minus) c = Or(a, b) d = Where(c, u, zero) y = MatMul(d, V) }}"""
    model = assert_computes(edgefl.load(onnx_model(text).SerializeToString()))
    assert ops(model).count("keep") == 1


TORCH_NETS = ["group_norm", "instance_norm", "prelu", "softplus", "mish", "hard_shrink", "normalize", "extremes", "rms"]


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("name", TORCH_NETS)
@pytest.mark.torch
@TORCH[1]
@TORCH[2]
def test_trains_as_torch(name, how, tmp_path):
    import torch
    import torch_ops
    from torch_step import assert_steps_like_torch, exported, unlike

    if name == "hard_shrink" and how != "dynamo":
        pytest.skip("the older exporter has no threshold but 0")
    torch.manual_seed(1)
    net, shape = getattr(torch_ops, name)()
    net = unlike(net)
    model = edgefl.load(exported(net, shape, how, tmp_path))
    assert model.plan.num_trainable == sum(tensor.numel() for tensor in net.parameters())
    assert_steps_like_torch(net, model)
