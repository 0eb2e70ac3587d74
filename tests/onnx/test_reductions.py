"""Products and running sums along an axis, norms in a window, and windows along one of three axes."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check
from onnx_files import assert_computes, onnx_model
from plan_reference import FORWARD
from torch_export import TORCH

import edgefl
from edgefl.errors import ModelError

ROWS = {
    "product": "p = ReduceProd<axes = [1], keepdims = 0>(u) y = MatMul(p, V)",
    "product of the innermost": "p = ReduceProd<axes = [-1], keepdims = 0>(u) y = MatMul(p, W)",
    "product of all": "p = ReduceProd<axes = [1, 2], keepdims = 0>(u) q = Unsqueeze(p, place) y = MatMul(q, Z)",
    "product kept": "p = ReduceProd<axes = [1]>(u) q = Mul(p, u) m = ReduceMean<axes = [1], keepdims = 0>(q) "
    "y = MatMul(m, V)",
    **{
        f"sum {given}": f"c = CumSum{given}(u, one) m = ReduceMax<axes = [1], keepdims = 0>(c) y = MatMul(m, V)"
        for given in ("", "<exclusive = 1>", "<reverse = 1>", "<exclusive = 1, reverse = 1>")
    },
    "sum of the innermost": "c = CumSum(u, minus) m = ReduceMax<axes = [1], keepdims = 0>(c) y = MatMul(m, V)",
}


def trained(body: str, opset: int = 17) -> edgefl.Model:
    text = f"""(float[N,5,6] x) => (float[N,3] y) <float[6,4] U, float[4,3] V, float[5,3] W, float[1,3] Z,
        int64 one = {{1}}, int64 minus = {{-1}}, int64[1] place = {{1}}> {{ u = MatMul(x, U) {body} }}"""
    return edgefl.load(onnx_model(text, opset=opset).SerializeToString(), loss="mse")


@pytest.mark.parametrize("name", ROWS)
def test_along_an_axis(name):
    model = assert_computes(trained(ROWS[name]))
    check(model.plan, FORWARD)


def test_a_product_with_zeros_has_their_gradient():
    text = """(float[N,3] x) => (float[N,1] y) <float[3] b = {0.0, 0.0, 0.0}> { u = Add(x, b)
        y = ReduceProd<axes = [1]>(u) }"""
    model = edgefl.load(onnx_model(text).SerializeToString(), loss="mse", train=["b"])
    gradient = edgefl.Trainer(model.plan).gradient(model.params, np.float32([[2, 0, 3]]), np.float32([[1]]))
    np.testing.assert_allclose(gradient, [0, -12, 0])


def test_a_sum_that_is_too_long_is_refused():
    text = (
        "(float[N,2000] x) => (float[N,1] y) <float[2000,1] V, int64 one = {1}> { c = CumSum(x, one) y = MatMul(c, V) }"
    )
    with pytest.raises(ModelError, match="at most 1024"):
        edgefl.load(onnx_model(text).SerializeToString(), loss="mse")


IMAGES = "(float[N,3,7,6] x) => (float[N,M,H,W] y) <float[4,3,3,3] K, float[2,4,1,1] L, int64[5] s = {0, 1, 4, 5, 4}"
POOLS = {
    "sum": "p = LpPool<p = 1, kernel_shape = [2, 2]>(c)",
    "norm": "p = LpPool<kernel_shape = [2, 3], strides = [2, 1], pads = [1, 1, 0, 1]>(c)",
    "same": 'p = LpPool<kernel_shape = [3, 3], auto_pad = "SAME_UPPER">(c)',
}


@pytest.mark.parametrize("name", POOLS)
def test_norms_in_a_window(name):
    model = assert_computes(
        edgefl.load(onnx_model(f"{IMAGES}> {{ c = Conv(x, K) {POOLS[name]} y = Conv(p, L) }}"), loss="mse")
    )
    check(model.plan, FORWARD)


def test_a_norm_of_nothing_has_no_gradient():
    text = f"{IMAGES}> {{ c = Conv(x, K) r = Relu(c) p = LpPool<kernel_shape = [2, 2]>(r) y = Conv(p, L) }}"
    model = edgefl.load(onnx_model(text), loss="mse")
    trainer, x = edgefl.Trainer(model.plan), np.zeros((2, 3, 7, 6), np.float32)
    gradient = trainer.gradient(model.params, x, np.ones((2, *trainer.predict(model.params, x).shape[1:]), np.float32))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kernel", ["[3, 1, 1]", "[1, 2, 1]", "[1, 1, 2]"])
@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_a_window_along_one_of_three_axes(op, kernel):
    pads = ", pads = [1, 0, 0, 1, 0, 0]" if kernel.startswith("[3") else ""
    text = f"""(float[N,3,7,6] x) => (float[N,A,B,C,D] y) <float[4,3,3,3] K, int64[5] shape = {{0, 2, 2, 5, 4}}>
        {{ c = Conv(x, K) v = Reshape(c, shape) y = {op}<kernel_shape = {kernel}, strides = [1, 1, 1]{pads}>(v) }}"""
    model = assert_computes(edgefl.load(onnx_model(text), loss="mse"))
    check(model.plan, FORWARD)


def test_a_window_over_several_of_three_axes_is_refused():
    text = f"{IMAGES}> {{ c = Conv(x, K) v = Reshape(c, s) y = AveragePool<kernel_shape = [2, 2, 1]>(v) }}"
    with pytest.raises(ModelError, match="along one, or over two of two axes"):
        edgefl.load(onnx_model(text.replace("N,M,H,W", "N,A,B,C,D")), loss="mse")


@pytest.mark.parametrize("kind", ["images", "series"])
@pytest.mark.torch
@TORCH[1]
@TORCH[2]
def test_local_response_norm_of_torch(kind, tmp_path):
    """By the newer exporter; the older one asks by If whether there are samples."""
    from torch import nn
    from torch_step import assert_steps_like_torch, exported, unlike

    made, shape = (nn.Conv2d(3, 6, 3), (3, 6, 5)) if kind == "images" else (nn.Conv1d(3, 6, 3), (3, 9))
    width = 6 * 4 * 3 if kind == "images" else 6 * 7
    net = unlike(nn.Sequential(made, nn.LocalResponseNorm(3, 0.5), nn.Flatten(), nn.Linear(width, 4)))
    assert_steps_like_torch(net, edgefl.load(exported(net, shape, "dynamo", tmp_path), loss="mse"))
