"""What repeats, mirrors or rearranges activations: Expand, Tile, Pad, class tokens, DepthToSpace, strided slices."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import assert_computes, moved, onnx_model, ops

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.untrained import GRAPH, REPEATED

IMAGE = "(float[N,4,5,6] x) => (float[N,A,B,C] y) <float[8,4,1,1] W, "
ROWS = "(float[N,4,6] x) => (float[N,A,B] y) <float[6,5] W, "
FORMS = {
    "expand": ROWS + "int64[3] s = {1, 4, 7}, float[6,1] V> { h = MatMul(x, V) y = Expand(h, s) }",
    "expand a new axis": ROWS + "int64[4] s = {1, 3, 4, 5}, int64[1] one = {1}>"
    "{ h = MatMul(x, W) u = Unsqueeze(h, one) y = Expand(u, s) }",
    "tile": ROWS + "int64[3] r = {1, 3, 2}> { h = MatMul(x, W) y = Tile(h, r) }",
    "tile of one": ROWS + "int64[3] r = {1, 12, 1}, int64[1] a = {0}, int64[1] b = {1}>"
    "{ h = MatMul(x, W) f = Slice(h, a, b, b) y = Tile(f, r) }",
    "tile of an image": IMAGE + "int64[4] r = {1, 2, 1, 3}> { c = Conv(x, W) y = Tile(c, r) }",
    "stride": IMAGE + "int64[2] s = {0, 4}, int64[2] e = {5, -100}, int64[2] a = {2, 3}, int64[2] t = {2, -3}>"
    "{ c = Conv(x, W) y = Slice(c, s, e, a, t) }",
    **{
        f"pad {mode}": IMAGE + "int64[8] p = {0, 1, 2, 0, 0, 0, 1, 3}>"
        f'{{ c = Conv(x, W) y = Pad<mode="{mode}">(c, p) }}'
        for mode in ("reflect", "edge", "constant")
    },
    "pad with a value": IMAGE + "int64[8] p = {0, 0, 2, 0, 0, 0, 1, 3}, float v = {1.5}>"
    "{ c = Conv(x, W) y = Pad(c, p, v) }",
    "pad below zero": IMAGE + "int64[8] p = {0, 0, -2, 1, 0, 0, 1, -3}> { c = Conv(x, W) y = Pad(c, p) }",
    "crop": IMAGE + "int64[8] p = {0, 0, -1, -2, 0, 0, -1, 0}> { c = Conv(x, W) y = Pad(c, p) }",
    "pad old": "(float[N,4,5,6] x) => (float[N,A,B,C] y) <float[8,4,1,1] W>"
    '{ c = Conv(x, W) y = Pad<mode="reflect", pads=[0,0,1,1,0,0,1,1]>(c) }',
    **{
        f"depth to space {mode}": f'{IMAGE[:-2]}> {{ c = Conv(x, W) y = DepthToSpace<blocksize=2, mode="{mode}">(c) }}'
        for mode in ("DCR", "CRD")
    },
    "space to depth": "(float[N,4,6,4] x) => (float[N,A,B,C] y) <float[3,4,1,1] W>"
    "{ c = Conv(x, W) y = SpaceToDepth<blocksize=2>(c) }",
    "pixel shuffle": IMAGE + "int64[6] a = {-1, 2, 2, 2, 5, 6}, int64[4] b = {-1, 2, 10, 12}>"
    "{ c = Conv(x, W) r = Reshape(c, a) t = Transpose<perm=[0,1,4,2,5,3]>(r) y = Reshape(t, b) }",
    "channel shuffle": IMAGE + "int64[5] a = {-1, 2, 4, 5, 6}, int64[4] b = {-1, 8, 5, 6}, float[2,4,1,1] V>"
    "{ c = Conv(x, W) r = Reshape(c, a) t = Transpose<perm=[0,2,1,3,4]>(r) s = Reshape(t, b)"
    " y = Conv<group=2>(s, V) }",
    "windows of attention": IMAGE + "int64[6] a = {-1, 1, 5, 2, 3, 8}, int64[3] b = {-1, 15, 8},"
    " int64[4] d = {-1, 2, 15, 8}, float[8,3] V> { c = Conv(x, W) p = Transpose<perm=[0,2,3,1]>(c) r = Reshape(p, a)"
    " t = Transpose<perm=[0,1,3,2,4,5]>(r) q = Reshape(t, d) y = MatMul(q, V) }",
}
FORMS["windows of attention"] = FORMS["windows of attention"].replace("{-1, 10, 15, 8}", "{-1, 2, 15, 8}")


@pytest.mark.parametrize("name", FORMS)
def test_agrees_with_onnxruntime(name):
    opset = 10 if name == "pad old" else 17
    assert_computes(edgefl.load(onnx_model(FORMS[name], opset=opset), loss="mse"))


def test_shuffles_move_the_data_once():
    assert ops(edgefl.load(onnx_model(FORMS["pixel shuffle"]), loss="mse")).count("transpose") == 2  # NCHW, and out
    assert ops(edgefl.load(onnx_model(FORMS["channel shuffle"]), loss="mse")).count("transpose") == 3


def with_token(body: str, more: str = "") -> onnx.ModelProto:
    return onnx_model(
        "(float[N,4,6] x) => (float[N,A,B] y) <float[6,5] W, float[1,1,5] t, int64 z = {0}, int64[1] a = {0},"
        f" int64[2] o = {{1, 5}}{more}> {{ h = MatMul(x, W) s = Shape(h) n = Gather(s, z) u = Unsqueeze(n, a)"
        f" d = Concat<axis=0>(u, o) k = Expand(t, d) {body} }}"
    )


@pytest.mark.parametrize("parts", ["k, h", "h, k"])
def test_a_class_token_is_trained(parts):
    model = assert_computes(edgefl.load(with_token(f"y = Concat<axis=1>({parts})"), loss="mse"))
    assert [p.name for p in model.plan.params if p.trainable] == ["W", "t"]
    after = moved(model)
    saved = onnx.ModelProto.FromString(model.to_bytes(after))
    stored = next(numpy_helper.to_array(t) for t in saved.graph.initializer if t.name == "t")
    np.testing.assert_array_equal(stored.ravel(), after[-5:])


def test_a_class_token_before_an_attention_is_that_of_torch():
    torch = pytest.importorskip("torch")
    model = edgefl.load(with_token("j = Concat<axis=1>(k, h) y = Tanh(j)"), loss="mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 4, 6)).astype(np.float32), rng.normal(size=(3, 5, 5)).astype(np.float32)
    weight, token = (torch.tensor(part, requires_grad=True) for part in np.split(model.params, [30]))
    rows = torch.cat([token.expand(3, 1, 5), torch.tensor(x) @ weight.reshape(6, 5)], 1)
    ((torch.tanh(rows) - torch.tensor(y)) ** 2).mean().backward()
    ours = edgefl.Trainer(model.plan).gradient(model.params, x, y)
    np.testing.assert_allclose(ours, np.concatenate([weight.grad, token.grad]), atol=1e-6)


def test_joined_zeros_are_not_trained():
    text = ROWS[:-2] + "> { k = Constant<value = float[1,2,5] {0,0,0,0,0,0,0,0,0,0}>()"
    model = edgefl.load(onnx_model(text + " h = MatMul(x, W) y = Concat<axis=1>(h, k) }"), loss="mse")
    assert [p.trainable for p in model.plan.params] == [True, False]
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    assert not edgefl.Trainer(model.plan).predict(model.params, x)[:, 4:].any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ROWS + "int64[3] r = {2, 1, 1}> { h = MatMul(x, W) y = Tile(h, r) }", "repeats samples"),
        (ROWS + "int64[2] r = {2, 1}> { h = MatMul(x, W) y = Tile(h, r) }", "do not fit"),
        (ROWS + 'int64[6] p = {0,0,5,0,0,0}> { h = MatMul(x, W) y = Pad<mode="reflect">(h, p) }', "use pads of 0 to 4"),
        (ROWS + 'int64[6] p = {0,0,-1,0,0,0}> { h = MatMul(x, W) y = Pad<mode="edge">(h, p) }', "use pads of 0"),
        (ROWS + "int64[6] p = {0,-2,0,0,-2,0}> { h = MatMul(x, W) y = Pad(h, p) }", "leave nothing"),
        (ROWS + "int64[6] p = {1,0,0,0,0,0}> { h = MatMul(x, W) y = Pad(h, p) }", "not the axis of the samples"),
        (ROWS + "float[1,2,4] t> { h = MatMul(x, W) y = Concat<axis=1>(h, t) }", "the same other axes"),
        (ROWS + "float[2,2,5] t> { h = MatMul(x, W) y = Concat<axis=1>(h, t) }", "an axis of one for the samples"),
        (IMAGE + "float[1] t> { c = Conv(x, W) y = DepthToSpace<blocksize=3>(c) }", "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(text, says):
    with pytest.raises(ModelError, match=says):
        edgefl.load(onnx_model(text), loss="mse")


def test_a_token_that_is_stored_for_each_sample_is_not_trained():
    """Training would change that of the first sample alone in the file."""
    token = np.repeat(np.random.default_rng(1).normal(size=(1, 1, 5)).astype(np.float32), 3, 0)
    text = "(float[3,2,6] x) => (float[3,3,5] y) <float[6,5] W, float[3,1,5] t> { s = MatMul(x, W)"
    model = edgefl.load(onnx_model(text + " y = Concat<axis=1>(t, s) }", t=token), loss="mse")
    assert [(p.name, p.trainable) for p in model.plan.params] == [("W", True), ("t", False)]
    assert model.untrained[0].reason == REPEATED
    assert_computes(model)


@pytest.mark.parametrize("train", [(), ("u.part",)])
def test_a_token_in_the_graph_is_trained_if_it_is_asked_for(train):
    """Also where two nodes read it."""
    text = ROWS[:-2].replace("N", "1") + "> { k = Constant<value = float[1,1,5] {1,2,3,4,5}>() h = MatMul(x, W)"
    file = onnx_model(text + " u = Concat<axis=1>(k, h) y = Concat<axis=1>(u, k) }")
    model = edgefl.load(file, loss="mse", train=train)
    assert [p.trainable for p in model.plan.params] == [True, bool(train)]
    assert [item.reason for item in model.untrained] == ([] if train else [GRAPH])
    assert_computes(model)
