"""A model's file put together from its skeleton and params, without onnx: bit for bit what `to_bytes` writes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from onnx_files import again, from_pytorch, onnx_model

import edgefl
from edgefl.core import protobuf
from edgefl.core.skeleton import LONGEST_BODY, MOST_AXES, Axis, Block, Header, Hole, Skeleton
from edgefl.errors import ModelError
from edgefl.onnx import skeleton, zoo
from edgefl.onnx.blocks import blocks_of

FOREIGN = [  # of the shared models all that can be trained
    "cntk_mnist-8", "hls4ml_conv2d_small_keras", "hls4ml_two_layer_keras", "onnx2c_lstm_k1_b1_r1",
    "pytorch_linear_regression_AI_Study", "pytorch_tiny_mnist_cnn",
]  # fmt: skip
SQUARE = "(float[N,4] x) => (float[N,4] y) <float[4,4] a__W, float[4] a__B>"
TEXTS = {
    "scaled": "(float[N,4] x) => (float[N,3] y) <float[4,3] W, float[3] B>{ y = Gemm<alpha=0.3, beta=0.7>(x, W, B) }",
    "split": f"{SQUARE}{{ b__W = Identity(a__W) b__B = Identity(a__B) h = Gemm(x, a__W, a__B) r = Relu(h)"
    " y = Gemm(r, b__W, b__B) }",
    "twice and split": f"{SQUARE}{{ b__W = Identity(a__W) b__B = Identity(a__B) h = Gemm(x, a__W, a__B) r = Relu(h)"
    " k = Gemm(r, a__W, a__B) s = Relu(k) l = Gemm(s, b__W, b__B) t = Relu(l) y = Gemm(t, b__W, b__B) }",
    "split in two forms": "(float[N,4] x) => (float[N,4] y) <float[4,4] a__W>{ b__W = Identity(a__W)"
    " T = Transpose(b__W) h = MatMul(x, a__W) r = Relu(h) k = MatMul(r, b__W) s = Relu(k) y = MatMul(s, T) }",
    "subtracted": "(float[N,4] x) => (float[N,3] y) <float[4] B, float[4,3] W>{ h = Sub(x, B) y = MatMul(h, W) }",
    "a list of numbers": "(float[N,3] x) => (float[N,1] y) { y = ai.onnx.ml.LinearRegressor<"
    "coefficients=[1.5, -2.0, 3.0], intercepts=[0.5], targets=1>(x) }",
    "six axes": "(float[N,64] x) => (float[N,3] y) <float[64,64] V, int64[7] s = {-1, 2, 2, 2, 2, 2, 2},"
    " float[2,2,2,2,2,2] M, float[64,3] W>{ h = MatMul(x, V) r = Reshape(h, s) q = Mul(r, M) f = Flatten(q)"
    " y = MatMul(f, W) }",
    "normalized": "(float[N,2,5] x) => (float[N,2,5] y) <float[2] s, float[2] b, float[2] m, float[2] v>"
    "{ y = BatchNormalization(x, s, b, m, v) }",
}


def others(model: edgefl.Model, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=model.params.shape).astype(np.float32)


def assert_splices(model: edgefl.Model) -> Skeleton:
    made = Skeleton.from_bytes(skeleton.make(model).to_bytes(), len(model.params))
    params = others(model)
    file = b"".join(made.pieces(params))
    assert file == protobuf.without_stamp(model.to_bytes(params))
    found = made.params_of(file + protobuf.stamp({"version": "7"}))
    assert found is not None
    np.testing.assert_allclose(found, params, rtol=1e-6)
    assert made.params_of(b"\0" + file[1:]) is None
    loaded, later = again(model, b"".join(made.pieces(model.params))), again(model, b"".join(made.pieces(abs(params))))
    assert (loaded.params == model.params).all() and later.plan.hash == model.plan.hash
    return made


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(shared, name):
    dims = {"M1": 6} if "lstm" in name else {}
    model = edgefl.load(shared / "models" / f"{name}.onnx", dims=dims)
    made = Skeleton.from_bytes(skeleton.make(model).to_bytes(), len(model.params))
    assert b"".join(made.pieces(model.params)) == model.source
    params = others(model)
    assert b"".join(made.pieces(params)) == model.to_bytes(params)
    assert len(made.to_bytes()) < 1024


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_graphs(text):
    v = np.array([0.5, 2.0], np.float32)  # a variance is not negative
    assert_splices(edgefl.load(from_pytorch(onnx_model(text, opset=14, v=v))))


def test_no_trained_number_is_in_a_skeleton():
    model = edgefl.load(zoo.mlp([4, 8, 3], seed=1))
    kept = assert_splices(model).kept
    assert not [number for number in model.params if number and number.tobytes() in kept]


def test_numbers_that_training_left_alone_keep_their_bits_where_the_file_scales_them():
    model = edgefl.load(onnx_model(TEXTS["scaled"]))
    params = model.params.copy()
    params[5] += 1
    assert b"".join(skeleton.make(model).pieces(params)) == model.to_bytes(params)


def test_a_file_trained_before_loses_its_old_stamp_only():
    source = zoo.mlp([4, 8, 3], seed=1)
    helper = onnx.helper.set_model_props
    helper(source, {"author": "me"})
    stamped = source.SerializeToString() + protobuf.stamp({"version": "3", "federation": "old"})
    assert protobuf.metadata_of(stamped) == {"version": "3", "federation": "old"}
    assert protobuf.without_stamp(stamped) == source.SerializeToString()
    made = skeleton.make(edgefl.load(stamped))
    file = b"".join(made.pieces(others(edgefl.load(stamped)))) + protobuf.stamp({"version": "9"})
    props = {prop.key: prop.value for prop in onnx.ModelProto.FromString(file).metadata_props}
    assert props == {"author": "me", "edgefl.version": "9"}
    onnx.checker.check_model(file)


def test_a_file_whose_rest_is_too_long_has_no_skeleton():
    proto = zoo.mlp([4, 8, 3], seed=1)
    onnx.helper.set_model_props(proto, {"notes": "x" * LONGEST_BODY})
    with pytest.raises(ModelError, match="bytes beside its params"):
        skeleton.make(edgefl.load(proto))


@pytest.mark.parametrize("shape", [(7,), (4, 3), (3, 4, 5), (2, 3, 4, 5), (1, 1), (60, 1), (2, 2)], ids=str)
def test_any_transposed_tensor_is_one_block(shape):
    rng = np.random.default_rng(0)
    indices = np.arange(np.prod(shape)).reshape(shape)
    for _ in range(10):
        moved = indices.transpose(rng.permutation(len(shape))).ravel() + 11
        made = blocks_of(moved)
        assert (np.concatenate([found for block in made for found in block.indices()]) == moved).all()
        assert len(made) == 1


def test_any_indices_make_blocks():
    rng = np.random.default_rng(0)
    for _ in range(300):
        indices = rng.integers(0, rng.integers(1, 30), rng.integers(1, 60))
        assert (np.concatenate([found for block in blocks_of(indices) for found in block.indices()]) == indices).all()


HOSTILE = {
    "beyond the params": Hole(0, [Block(8, [Axis(3, 1)])]),
    "before them": Hole(0, [Block(1, [Axis(3, -1)])]),
    "beyond the file": Hole(4, [Block(0, [Axis(10, 1)])]),
    "endless": Hole(0, [Block(0, [Axis(2**31, 0)] * MOST_AXES)]),
    "no scale": Hole(0, [Block(0)], 4, 0.0),
}


@pytest.mark.parametrize("hole", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_holes_are_refused(hole):
    with pytest.raises(ModelError, match="damaged skeleton"):
        Skeleton(Header(40, 10, [hole]), b"" if hole.is_cut else bytes(40))


def test_what_is_long_is_refused_before_it_is_unpacked():
    good = skeleton.make(edgefl.load(zoo.mlp([4, 8, 3], seed=1))).to_bytes()
    for size in (2**32 - 1, LONGEST_BODY + 1, 0, 5):
        bad = good[:8] + size.to_bytes(4, "little") + good[12:]
        with pytest.raises(ModelError):
            Skeleton.from_bytes(bad, 67)
    with pytest.raises(ModelError, match="for a model of 66"):
        Skeleton.from_bytes(good, 66)
    with pytest.raises(ModelError, match="newer EdgeFL"):
        Skeleton.from_bytes(good[:4] + b"\2" + good[5:], 67)


def test_a_file_is_put_together_and_read_in_a_fraction_of_its_memory():
    rows, columns = 1024, 2048  # transposed: 8 MB, and 16 MB of indices
    hole = Hole(0, [Block(0, [Axis(columns, 1), Axis(rows, columns)])])
    made = Skeleton(Header(4 * rows * columns, rows * columns, [hole]), b"")
    params = np.arange(rows * columns, dtype=np.float32)
    file = params.reshape(rows, columns).T.tobytes()
    tracemalloc.start()
    at = 0
    for piece in made.pieces(params):
        assert piece == file[at : at + len(piece)]
        at += len(piece)
    _, writing = tracemalloc.get_traced_memory()
    back = made.params_of(file)
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert at == len(file) and back is not None and (back == params).all()
    assert writing < params.nbytes / 2 and reading < 2 * params.nbytes
