"""Convolutions, pooling and normalisation by channel: the plan's images against onnxruntime's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_files import assert_computes, onnx_model, ops

import edgefl

IMAGE = "(float[N,4,9,7] x) => (float[N,A,B,C] y)"
SERIES = "(float[N,4,11] x) => (float[N,A,B] y)"
AFTER = IMAGE + "<float[3,4,1,1] W> { c = Conv(x, W) y = "
AUTO = ("SAME_UPPER", "SAME_LOWER", "VALID")
ONE_OP = {
    "conv": IMAGE + "<float[5,4,3,2] W, float[5] b> { y = Conv(x, W, b) }",
    "strides_dilations": IMAGE + "<float[5,4,3,2] W> { y = Conv<strides=[2,3], dilations=[2,1]>(x, W) }",
    "uneven_pads": IMAGE + "<float[5,4,3,2] W> { y = Conv<pads=[0,1,2,3]>(x, W) }",
    "groups": IMAGE + "<float[6,2,3,3] W, float[6] b> { y = Conv<group=2, pads=[1,1,1,1]>(x, W, b) }",
    "depthwise": IMAGE + "<float[4,1,3,3] W, float[4] b> { y = Conv<group=4>(x, W, b) }",
    "depthwise_many": IMAGE + "<float[8,1,3,3] W> { y = Conv<group=4, strides=[2,1], pads=[1,0,0,1]>(x, W) }",
    "one_channel_out": IMAGE + "<float[1,4,3,3] W, float[1] b> { c = Conv(x, W) y = Add(c, b) }",
    "series": SERIES + "<float[5,4,3] W, float[5] b> { y = Conv<strides=[2], pads=[2,1]>(x, W, b) }",
    "series_groups": SERIES + "<float[4,1,3] W> { y = Conv<group=4, dilations=[2]>(x, W) }",
    "series_pools": SERIES + "<float[5,4,3] W> { c = Conv(x, W) p = MaxPool<kernel_shape=[2], strides=[2]>(c)"
    " y = GlobalAveragePool(p) }",
    "max_pool": AFTER + "MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,2,1]>(c) }",
    "max_pool_ceil": AFTER + "MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(c) }",
    "max_pool_ceil_dropped": AFTER + "MaxPool<kernel_shape=[1,2], strides=[3,3], pads=[0,1,0,1], ceil_mode=1>(c) }",
    "average_pool": AFTER + "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c) }",
    "average_pool_counted": AFTER + "AveragePool<kernel_shape=[3,2], pads=[1,1,1,0], count_include_pad=1>(c) }",
    "average_pool_ceil": AFTER + "AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(c) }",
    "max_pool_dilated": AFTER + "MaxPool<kernel_shape=[3,2], dilations=[2,3], pads=[1,1,2,0]>(c) }",
    "average_pool_counted_ceil": AFTER + "AveragePool<kernel_shape=[3,2], strides=[2,3], pads=[1,1,1,0], ceil_mode=1,"
    " count_include_pad=1>(c) }",
    "lrn": AFTER + "LRN<size=3, alpha=0.3, beta=0.6, bias=1.5>(c) }",
    "lrn_default": AFTER + "LRN<size=5>(c) }",
    "global_average": AFTER + "GlobalAveragePool(c) }",
    "global_max": AFTER + "GlobalMaxPool(c) }",
    "norm": IMAGE + "<float[3,4,3,3] W, float[3] g, float[3] b, float[3] m, float[3] v = {1, 2, 0.5}>"
    "{ c = Conv(x, W) y = BatchNormalization<epsilon=0.001, momentum=0.8>(c, g, b, m, v) }",
    "norm_of_series": SERIES + "<float[4] g, float[4] b, float[4] m, float[4] v = {1, 2, 0.5, 3}>"
    "{ y = BatchNormalization(x, g, b, m, v) }",
    "norm_of_features": "(float[N,3] x) => (float[N,3] y) <float[3] g, float[3] b, float[3] m, float[3] v = {1, 2, 3}>"
    "{ y = BatchNormalization(x, g, b, m, v) }",
    **{
        f"conv_{mode}": IMAGE + f'<float[5,4,4,3] W> {{ y = Conv<auto_pad="{mode}", strides=[2,1]>(x, W) }}'
        for mode in AUTO
    },
    **{
        f"{pool}_{mode}": AFTER + f'{pool}<kernel_shape=[2,3], strides=[2,2], auto_pad="{mode}">(c) }}'
        for mode in AUTO
        for pool in ("MaxPool", "AveragePool")
    },
}


@pytest.mark.parametrize("name", ONE_OP)
def test_agrees_with_onnxruntime(name):
    assert_computes(edgefl.load(onnx_model(ONE_OP[name]), loss="mse"))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_geometry_agrees_with_onnxruntime(data):
    draw, small = data.draw, st.integers(1, 3)
    kernel, strides, dilations = ([draw(small) for _ in range(2)] for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [draw(st.integers(far, far + 6)) for far in reach]
    pads = [draw(st.integers(0, 3)) for _ in range(4)]
    groups, each, out = draw(small), draw(small), draw(small)
    text = (
        f"(float[N,{groups * each},{size[0]},{size[1]}] x) => (float[N,A,B,C] y)"
        f"<float[{groups * out},{each},{kernel[0]},{kernel[1]}] W>"
        f"{{ y = Conv<group={groups}, strides={strides}, dilations={dilations}, pads={pads}>(x, W) }}"
    )
    assert_computes(edgefl.load(onnx_model(text), loss="mse"))


def test_image_of_one_channel_is_not_moved():
    text = "(float[N,1,6,5] x) => (float[N,3] y) <float[2,1,3,3] W, float[24,3] V>"
    model = edgefl.load(onnx_model(text + "{ c = Conv(x, W) r = Relu(c) f = Flatten(r) y = MatMul(f, V) }"))
    assert ops(assert_computes(model)) == ["reshape", "conv", "relu", "flatten", "dense"]


def test_keras_transposes_cancel():
    text = "(float[N,6,5,2] x) => (float[N,3] y) <float[2,2,3,3] W, float[2] b, float[24,3] V>"
    walk = (
        "{ t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, W) d = Add(c, B) r = Relu(d)"
        " u = Transpose<perm=[0,2,3,1]>(r) f = Flatten(u) y = MatMul(f, V) }"
    )
    bias = np.array([[[1]], [[2]]], np.float32)
    model = edgefl.load(onnx_model(text.replace("float[2] b", "float[2,1,1] B") + walk, B=bias))
    assert ops(assert_computes(model)) == ["conv", "relu", "flatten", "dense"]
    assert [p.shape for p in model.plan.params][:2] == [[3, 3, 2, 2], [2]]


def test_flattened_channels_permute_the_weight_not_the_activation():
    text = "(float[N,2,6,5] x) => (float[N,3] y) <float[2,2,3,3] W, float[24,3] V>"
    model = edgefl.load(onnx_model(text + "{ c = Conv(x, W) f = Flatten(c) y = MatMul(f, V) }"))
    assert ops(assert_computes(model)) == ["reshape", "transpose", "reshape", "conv", "flatten", "dense"]


def test_input_is_turned_once_for_a_residual():
    text = "(float[N,3,6,6] x) => (float[N,3,6,6] y) <float[3,3,3,3] W, float[3,3,1,1] V>"
    walk = "{ a = Conv<pads=[1,1,1,1]>(x, W) b = Conv(x, V) c = Add(a, b) d = Add(c, x) y = Relu(d) }"
    model = assert_computes(edgefl.load(onnx_model(text + walk)))
    assert ops(model).count("transpose") == 2, "the input's, and the output's back to channels first"
    assert model.plan.loss == "mse"


def test_running_statistics_are_state_at_the_tail():
    model = assert_computes(edgefl.load(onnx_model(ONE_OP["norm"])))
    assert [(p.name, p.trainable) for p in model.plan.params] == [
        ("W", True),
        ("g", True),
        ("b", True),
        ("m", False),
        ("v", False),
    ]
    node = next(node for node in model.plan.nodes if node.op == "batch_norm")
    assert node.params == [1, 2, 3, 4]
    np.testing.assert_allclose(node.floats, [0.001, 0.8], rtol=1e-6)
    after = model.params.copy()
    after[-3:] = [4, 5, 6]
    assert edgefl.load(model.to_bytes(after)).state.tolist() == [*model.state[:3].tolist(), 4, 5, 6]


def test_classes_of_pixels_are_the_channels():
    text = "(float[N,2,3,4] x) => (float[N,5,3,4] y) <float[5,2,1,1] W> "
    for tail in ("y = Conv(x, W)", "c = Conv(x, W) y = Softmax<axis=1>(c)"):
        model = assert_computes(edgefl.load(onnx_model(text + f"{{ {tail} }}")))
        assert (model.plan.loss, model.class_axis, model.output_shape) == ("cross_entropy", 1, (5, 3, 4))
