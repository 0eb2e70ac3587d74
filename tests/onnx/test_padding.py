"""Masks that are computed from tokens: what onnxruntime computes of them, and a sample of nothing but padding."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import assert_computes, onnx_model, ops

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator

HEAD = """(int64[N,6] t) => (float[N,{out}] y) <float[10,8] E, float[8,3] W, int64 zero = {{0}}, int64 two = {{2}},
    int64 five = {{5}}, float low = {{-10000.0}}, float one = {{1.0}},
    int64[1] last = {{2}}, int64[1] step = {{1}}, int64 single = {{1}},
    bool[6] some = {{1, 1, 0, 1, 1, 1}}> {{ e = Gather(E, t) {body} }}"""
MEAN = " k = Unsqueeze(w, last) p = Mul(e, k) m = ReduceSum<keepdims = 0>(p, step) y = MatMul(m, W)"
MASKS = {
    "equal": "c = Equal(t, two) w = Cast<to = 1>(c)" + MEAN,
    "not": "b = Equal(t, two) c = Not(b) w = Cast<to = 1>(c)" + MEAN,
    "greater": "c = Greater(t, two) w = Cast<to = 1>(c)" + MEAN,
    "less or equal": "c = LessOrEqual(t, five) w = Cast<to = 1>(c)" + MEAN,
    "and": "a = Greater(t, two) b = Less(t, five) c = And(a, b) w = Cast<to = 1>(c)" + MEAN,
    "or": "a = Less(t, two) b = Greater(t, five) c = Or(a, b) w = Cast<to = 1>(c)" + MEAN,
    "and of negated": "a = LessOrEqual(t, five) b = GreaterOrEqual(t, two) c = And(a, b) w = Cast<to = 1>(c)" + MEAN,
    "or of negated": "a = Equal(t, two) b = Equal(t, five) c = Or(a, b) w = Cast<to = 1>(c)" + MEAN,
    "mixed": "a = Equal(t, two) b = Less(t, five) n = Not(a) c = And(n, b) w = Cast<to = 1>(c)" + MEAN,
    "or mixed": "a = Equal(t, two) b = Less(t, five) c = Or(b, a) w = Cast<to = 1>(c)" + MEAN,
    "and known": "a = Less(t, five) c = And(a, some) w = Cast<to = 1>(c)" + MEAN,
    "or known": "a = Less(t, five) c = Or(some, a) w = Cast<to = 1>(c)" + MEAN,
    "and known, negated": "a = Equal(t, two) c = And(some, a) w = Cast<to = 1>(c)" + MEAN,
    "or known, negated": "a = Equal(t, two) c = Or(a, some) w = Cast<to = 1>(c)" + MEAN,
    "bool of tokens": "c = Cast<to = 9>(t) w = Cast<to = 1>(c)" + MEAN,
    "chosen": "c = Equal(t, two) w = Where(c, one, low)" + MEAN,
    "chosen numbers": "c = Equal(t, two) k = Unsqueeze(c, last) p = Where(k, e, low) "
    "m = ReduceMax<keepdims = 0, axes = [1]>(p) y = MatMul(m, W)",
    "counted": "c = Equal(t, two) i = Cast<to = 7>(c) r = Sub(single, i) s = ReduceSum<keepdims = 1>(r, step) "
    "u = Max(s, single) w = Cast<to = 1>(u) m = ReduceSum<keepdims = 0>(e, step) d = Div(m, w) y = MatMul(d, W)",
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_tokens(name):
    proto = onnx_model(HEAD.format(out=3, body=MASKS[name]), opset=17)
    model = assert_computes(edgefl.load(proto.SerializeToString(), loss="mse"))
    assert model.plan.num_trainable == 10 * 8 + 8 * 3


ATTENTION = """(int64[N,4] t) => (float[N,4,8] y) <float[10,8] E, int64 zero = {0}, int64[1] first = {1},
    float[1] none = {0.0}, float[1] inf> { e = Gather(E, t) q = Transpose<perm = [0, 2, 1]>(e)
    s = MatMul(e, q) b = Equal(t, zero) c = Unsqueeze(b, first) a = Where(c, inf, none) m = Add(s, a)
    p = Softmax<axis = -1>(m) n = IsNaN(p) g = Where(n, none, p) y = MatMul(g, e) }"""


def infinite(text: str) -> bytes:
    """The graph with minus infinity, which ONNX's text can't write."""
    return onnx_model(text, inf=np.float32([-np.inf])).SerializeToString()


def test_a_sample_of_padding_alone_attends_to_nothing_where_the_graph_looks_for_nan():
    source = infinite(ATTENTION)
    model = edgefl.load(source, loss="mse")
    x = np.array([[1, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 6]])
    ours, theirs = edgefl.Trainer(model.plan).predict(model.params, x), OnnxEvaluator(model).predict(model.params, x)
    assert not theirs[1].any()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.isfinite(edgefl.Trainer(model.plan).fit(model.params, x, np.zeros((3, 4, 8)), lr=0.1).delta).all()
    assert "keep" in ops(model)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("b = Equal(t, zero) f = Where(b, inf, none) m = Mul(f, f) y = MatMul(m, W)", "just before their softmax"),
        ("f = Mul(t, two) y = Gather(E, f)", "tokens that are computed: feed"),
    ],
)
def test_what_would_be_trained_otherwise_is_refused(body, says):
    text = f"""(int64[N,4] t) => (float[N,M] y) <float[10,8] E, float[4,3] W, int64 zero = {{0}}, int64 two = {{2}},
        float[1] none = {{0.0}}, float[1] inf> {{ {body} }}"""
    with pytest.raises(ModelError, match=says):
        edgefl.load(infinite(text), loss="mse")


BERT = """(int64[N,4] ids, int64[N,4] mask) => (float[N,3] y) <float[10,8] E, float[8,3] W, int64[1] first = {{1}},
    float one = {{1.0}}, float low = {{-1000000000.0}}> {{ e = Gather(E, ids) q = Transpose<perm = [0, 2, 1]>(e)
    s = MatMul(e, q) u = Unsqueeze(mask, first) {hidden} p = Softmax<axis = -1>(m) v = MatMul(p, e)
    r = ReduceMean<axes = [1], keepdims = 0>(v) y = MatMul(r, W) }}"""


@pytest.mark.parametrize(
    "hidden",
    [
        "f = Cast<to = 1>(u) g = Sub(one, f) h = Mul(g, low) m = Add(s, h)",
        "f = Cast<to = 9>(u) m = Where(f, s, low)",
    ],
)
def test_a_mask_that_is_an_input_beside_the_tokens(hidden):
    model = edgefl.load(onnx_model(BERT.format(hidden=hidden)).SerializeToString(), loss="mse")
    seen = np.arange(4) < np.array([4, 3, 2, 1, 4])[:, None]
    x = {"ids": np.random.default_rng(0).integers(0, 10, (5, 4)), "mask": seen.astype(np.int64)}
    trainer = edgefl.Trainer(model.plan)
    found = trainer.predict(model.params, x)
    np.testing.assert_allclose(found, OnnxEvaluator(model).predict(model.params, x), atol=1e-5)
    other = {**x, "ids": np.where(seen, x["ids"], (x["ids"] + 1) % 10)}
    assert not np.allclose(found[1:4], trainer.predict(model.params, other)[1:4])  # what is hidden asks too
    y = np.zeros((5, 3), np.float32)
    first, last = (trainer.fit(model.params, x, y, epochs=epochs, lr=0.1) for epochs in (1, 5))
    assert last.loss < first.loss
