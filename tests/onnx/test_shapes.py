"""What moves, cuts and joins: the layouts against NumPy, the plans against onnxruntime."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_files import assert_computes, onnx_model, ops

import edgefl
from edgefl.onnx.layout import OPEN, fresh, positions

CUBE = "(float[N,2,3,4] x) => (float[N,A,B,C] y)"


def after(ops_text: str, tensors: str = "float[4] unread") -> str:
    """A product along the last axis, so that there is something to train, and then what is looked at."""
    return f"{CUBE} <float[4,4] W, {tensors}> {{ h = MatMul(x, W) {ops_text} }}"


PATTERNS = {
    "flatten": after("y = Flatten(h)"),
    "flatten_from_behind": after("y = Flatten<axis=-3>(h)"),
    "reshape": after("y = Reshape(h, t)", "int64[4] t = {-1,3,4,2}"),
    "reshape_copies_and_infers": after("y = Reshape(h, t)", "int64[3] t = {0,-1,2}"),
    "reshape_of_transposed": after("u = Transpose<perm=[0,3,1,2]>(h) y = Reshape(u, t)", "int64[3] t = {-1,2,12}"),
    "transposed": after("y = Transpose<perm=[0,2,3,1]>(h)"),
    "squeeze_and_back": after(
        "u = Unsqueeze(h, a) v = Transpose<perm=[0,2,1,3,4]>(u) w = Squeeze(v, b) y = Relu(w)",
        "int64[1] a = {1}, int64[1] b = {2}",
    ),
    "slice": after(
        "y = Slice(h, f, t, a)", "int64[2] f = {1,-3}, int64[2] t = {9223372036854775807,-1}, int64[2] a = {2,-1}"
    ),
    "slice_with_samples": after("y = Slice(h, f, t)", "int64[2] f = {0,1}, int64[2] t = {9223372036854775807,2}"),
    "gather_one": after("y = Gather<axis=2>(h, i)", "int64 i = {-1}"),
    "gather_neighbours": after("y = Gather<axis=3>(h, i)", "int64[2] i = {1,2}"),
    "split": after("a, b, c = Split<axis=3>(h, s) d = Mul(a, c) y = Concat<axis=3>(d, b)", "int64[3] s = {1,2,1}"),
    "concat_of_unlike_layouts": after(
        "t = Transpose<perm=[0,2,1,3]>(h) r = Reshape(t, q) y = Concat<axis=2>(h, r)", "int64[4] q = {0,2,3,4}"
    ),
    "concat_of_many": after("y = Concat<axis=1>(h, h, h, h, h, h, h, h, h, h)"),
    "pad": after("y = Pad(h, p, v)", "int64[8] p = {0,1,0,2,0,0,3,0}, float v = {0.5}"),
    "pad_of_transposed": after("t = Transpose<perm=[0,3,1,2]>(h) y = Pad(t, p)", "int64[8] p = {0,1,0,2,0,0,3,0}"),
    "mean": after("m = ReduceMean<axes=[2], keepdims=1>(h) y = Sub(h, m)"),
    "mean_dropped": after("y = ReduceMean<axes=[-1,1], keepdims=0>(h)"),
    "sum": after("y = ReduceSum(h, a)", "int64[2] a = {1,2}"),
    "softmax_of_middle": after("s = Softmax<axis=2>(h) y = Mul(s, h)"),
    "softmax_of_transposed": after("t = Transpose<perm=[0,3,1,2]>(h) s = Softmax(t) y = Neg(s)"),
    "norm": after("y = LayerNormalization(h, g, b)", "float[4] g, float[4] b"),
    "norm_over_two_of_transposed": after(
        "t = Transpose<perm=[0,2,3,1]>(h) y = LayerNormalization<axis=2>(t, g)", "float[4,2] g"
    ),
    "product": after("t = Transpose<perm=[0,1,3,2]>(h) y = MatMul(h, t)"),
    "product_of_columns": after("t = Transpose<perm=[0,1,3,2]>(h) y = MatMul(t, h)"),
    "weight_on_the_left": after("y = MatMul(V, h)", "float[5,3] V"),
    "samples_and_heads_in_one_axis": after(
        "r = Reshape(h, q) t = Transpose<perm=[0,2,1]>(r) p = MatMul(r, t) s = Softmax(p) m = MatMul(s, r)"
        " y = Reshape(m, o)",
        "int64[3] q = {-1,3,4}, int64[4] o = {-1,2,3,4}",
    ),
    "rows_of_all_samples": after(
        "f = Reshape(h, q) g = MatMul(f, V) u = Relu(g) y = Reshape(u, o)",
        "int64[2] q = {-1,4}, int64[4] o = {-1,2,3,5}, float[4,5] V",
    ),
    "steps_before_samples": after(
        "t = Transpose<perm=[1,2,0,3]>(h) g = MatMul(t, V) r = Add(g, b) y = Transpose<perm=[2,0,1,3]>(r)",
        "float[4,5] V, float[5] b",
    ),
    "shape_arithmetic": after(
        "z = Shape(h) n = Slice(z, zero, one) t = Concat<axis=0>(n, rest) y = Reshape(h, t)",
        "int64[1] zero = {0}, int64[1] one = {1}, int64[2] rest = {6,4}",
    ),
    "expand_to_its_own": after("z = Shape(h) y = Expand(h, z)"),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_agrees_with_onnxruntime(name):
    opset = 13 if name.startswith("mean") else 17
    assert_computes(edgefl.load(onnx_model(PATTERNS[name], opset), loss="mse"))


OLD = {
    "slice": after("y = Slice<starts=[1], ends=[3], axes=[2]>(h)"),
    "pad": after("y = Pad<pads=[0,0,1,0,0,0,0,2], value=1.5>(h)"),
    "squeeze": after("u = Unsqueeze<axes=[1]>(h) y = Squeeze<axes=[1]>(u)"),
    "split": after("a, b = Split<axis=3, split=[1,3]>(h) y = Concat<axis=3>(b, a)"),
    "softmax_of_all_behind": after("s = Softmax<axis=2>(h) y = Neg(s)"),
    "clip": after("y = Clip<min=-0.5, max=0.25>(h)"),
    "dropout": after("y = Dropout<ratio=0.25>(h)"),
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("opset", [7, 9])
def test_attributes_of_old_files_agree_with_onnxruntime(name, opset):
    assert_computes(edgefl.load(onnx_model(OLD[name], opset, ir_version=3), loss="mse"))


def test_transposes_that_nothing_needs_leave_no_node():
    text = after("a = Transpose<perm=[0,3,1,2]>(h) b = Relu(a) y = Transpose<perm=[0,2,3,1]>(b)")
    assert ops(edgefl.load(onnx_model(text), loss="mse")) == ["dense", "relu"]


def test_keys_are_read_as_they_lie():
    model = edgefl.load(onnx_model(PATTERNS["product"]), loss="mse")
    assert ops(model) == ["dense", "matmul"]
    assert model.plan.nodes[1].ints == [1]


@st.composite
def moves(draw):
    """A shape with a samples' axis, and steps that NumPy can follow: permutations and reshapes."""
    sizes = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(1, 3)))]
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["transpose", "reshape"]))
        steps.append((kind, draw(st.randoms(use_true_random=False))))
    return sizes, steps


@given(moves(), st.sampled_from([1, 5, OPEN]))
def test_layout_follows_what_numpy_moves(drawn, samples):
    """Each element's place, tracked by an array of places with 5 samples (or the 1 that a file fixes)."""
    sizes, steps = drawn
    count = 1 if samples == 1 else 5
    layout = fresh([None, *sizes], samples)
    size = prod(sizes)
    places = np.tile(np.arange(size).reshape(1, *sizes), (count, *(1,) * len(sizes)))
    for kind, random in steps:
        if kind == "transpose":
            order = random.sample(range(places.ndim), places.ndim)
            layout, places = layout.transposed(order), places.transpose(order)
            continue
        shape = list(places.shape)
        if len(shape) > 1 and random.random() < 0.5:
            at = random.randrange(len(shape) - 1)
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        else:
            at = random.randrange(len(shape))
            part = random.choice([d for d in range(1, shape[at] + 1) if shape[at] % d == 0])
            shape[at : at + 1] = [part, shape[at] // part]
        target = [s if samples != OPEN else s * OPEN // 5 if s % 5 == 0 else s for s in shape]
        moved = layout.reshaped(target)
        if moved is not None:
            layout, places = moved, places.reshape(shape)
    if all(not factor.stride for factor in layout.axes[layout.samples]):
        first = np.moveaxis(places, layout.samples, 0)[0]
        assert first.shape == layout.sample_shape
        np.testing.assert_array_equal(positions(layout.factors(layout.inner)), first.ravel())


SPREAD = {
    "samples in the second axis": (
        "(float[N,6] x) => (float[A,B,C] y) <float[6,3] W, float[1,1,3] b> { h = MatMul(x, W) y = Add(h, b) }",
        (1, 3),
    ),
    "two rows for each sample": (
        "(float[N,6] x) => (float[M,3] y) <float[3,3] W, int64[2] s = {-1,3}> { f = Reshape(x, s) y = MatMul(f, W) }",
        (2, 3),
    ),
    "all numbers in one column": (
        "(float[N,2,3] x) => (float[M,1] y) <float[3,3] W, int64[2] s = {-1,1}> { h = MatMul(x, W) y = Reshape(h, s) }",
        (6, 1),
    ),
}


@pytest.mark.parametrize("name", SPREAD)
def test_an_output_is_one_of_each_sample_wherever_these_are(name):
    text, shape = SPREAD[name]
    assert assert_computes(edgefl.load(onnx_model(text), loss="mse")).output_shape == shape
