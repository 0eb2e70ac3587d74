"""Products of two values (attention with softmax), and embeddings with their tokens."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import DataError, ModelError

REFERENCE = {
    "matmul": lambda node, a, b: a @ (np.swapaxes(b, -1, -2) if node.ints[0] else b),
    "softmax": lambda node, x: softmax(x),
    "embedding": lambda node, x, w: w[np.int64(x)],
}


def product(shape, left, right, trans_b):
    """x (..., rows, inner) times two weights, then the product of both: both sides have a gradient."""
    nodes = [Node("dense", [0], [0]), Node("dense", [0], [1]), Node("matmul", [1, 2], [], [trans_b])]
    return Plan(shape, nodes, [Param("a", [shape[-1], left]), Param("b", [shape[-1], right])], "mse", 3, 3)


@pytest.mark.parametrize("batch_axes", [[], [1], [3], [2]])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_products_against_numpy(batch_axes, trans_b):
    right = 3 if trans_b else 4
    check(product([*batch_axes, 5, 3], 3 if trans_b else 5, right, trans_b), REFERENCE)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 19), inner=st.integers(1, 5), width=st.integers(1, 18), trans_b=st.integers(0, 1))
def test_products_of_any_size(rows, inner, width, trans_b):
    left = width if trans_b else rows
    check(product([rows, inner], left, width, trans_b), REFERENCE, samples=2)


def test_two_batch_axes():
    check(product([2, 2, 3, 2], 3, 2, 0), REFERENCE, samples=2)


def test_a_value_times_itself():
    nodes = [Node("dense", [0], [0]), Node("matmul", [1, 1], [], [1])]
    check(Plan([4, 3], nodes, [Param("w", [3, 3])], "mse", 2, 2), REFERENCE)


def attention(time, width, vocabulary=None):
    """softmax(q k^T) v over the sequence, on numbers or on embedded tokens, with a label at every step."""
    params = [Param("e", [vocabulary or width, width])]
    params += [Param(name, [width, width]) for name in "qkv"] + [Param("out", [width, 4])]
    nodes = [
        Node("embedding" if vocabulary else "dense", [0], [0]),
        *(Node("dense", [1], [i]) for i in (1, 2, 3)),
        Node("matmul", [2, 3], [], [1]),
        Node("softmax", [5]),
        Node("matmul", [6, 4], [], [0]),
        Node("add", [7, 1]),
        Node("dense", [8], [4]),
    ]
    shape, kind = ([time], "int64") if vocabulary else ([time, width], "float32")
    return Plan(shape, nodes, params, "cross_entropy", 9, 9, input_dtype=kind)


@pytest.mark.parametrize(("time", "width"), [(1, 1), (5, 3), (16, 8)])
def test_attention_against_numpy(time, width):
    check(attention(time, width), REFERENCE)
    fused_equals_buffered(attention(time, width))


def test_attention_over_tokens_against_numpy():
    tokens = np.random.default_rng(0).integers(0, 7, (5, 6))
    check(attention(6, 3, 7), REFERENCE, x=tokens)


@pytest.mark.parametrize("shape", [[], [1], [7], [2, 3], [2, 2, 2]])
@pytest.mark.parametrize("width", [1, 3, 17])
def test_embedding_against_numpy(shape, width):
    tokens = np.random.default_rng(0).integers(0, 5, (6, *shape))
    check(Plan(shape, [Node("embedding", [0], [0])], [Param("w", [5, width])], "mse", 1, 1), REFERENCE, x=tokens)


def test_a_shared_embedding_gets_both_gradients():
    nodes = [Node("embedding", [0], [0]), Node("embedding", [0], [0]), Node("add", [1, 2])]
    tokens = np.random.default_rng(0).integers(0, 5, (6, 2))
    check(Plan([2], nodes, [Param("w", [5, 3])], "mse", 3, 3), REFERENCE, x=tokens)


@pytest.mark.parametrize(
    ("shape", "second", "ints", "says"),
    [
        ([3], 0, [0], "same number of axes, 2 or more"),
        ([2, 3], 2, [0], "same number of axes"),
        ([4, 3], 0, [0], r"\(M, K\) by \(K, N\)"),
        ([4, 3], 1, [1], r"\(N, K\) with trans_b"),
        ([4, 3], 0, [2], "trans_b 0 or 1"),
        ([4, 3], 0, [-1], "trans_b 0 or 1"),
        ([4, 3], 0, [], "wrong number"),
        ([2**16, 3], 0, [1], "too large"),
    ],
)
def test_products_that_do_not_fit_are_refused(shape, second, ints, says):
    """x times itself, x times a dense layer of it, x times itself flattened."""
    nodes = [Node("dense", [0], [0]), Node("flatten", [0]), Node("matmul", [0, second], [], ints)]
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan(shape, nodes, [Param("w", [3, 5])], "mse", 3, 3), 2)


@pytest.mark.parametrize(
    ("input_shape", "weight", "says"),
    [
        ([3], [5], r"needs a weight \(V, D\)"),
        ([3], [5, 2, 2], r"needs a weight \(V, D\)"),
        ([2, 2, 2, 2, 1, 1], [5, 2], "fewer than 6 axes"),
        ([3], [2**24 + 1, 1], "vocabulary"),
        ([2**20], [2, 2**20], "too large"),
    ],
)
def test_malformed_embeddings_are_refused(input_shape, weight, says):
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan(input_shape, [Node("embedding", [0], [0])], [Param("w", weight)], "mse", 1, 1), 1)


def test_tokens_that_are_computed_are_refused():
    nodes = [Node("relu", [0]), Node("embedding", [1], [0])]
    with pytest.raises(ModelError, match=r"node 1 \(embedding\): reads tokens that are computed"):
        _core.Net(Plan([3], nodes, [Param("w", [5, 2])], "mse", 2, 2), 1)


TOKENS = attention(6, 3, 7)
PARAMS = np.random.default_rng(1).normal(0, 0.5, TOKENS.num_params).astype(np.float32)
X = np.random.default_rng(2).integers(0, 7, (30, 6))
Y = X % 4


def test_a_label_at_every_step():
    trainer = Trainer(TOKENS)
    result = trainer.fit(PARAMS, X, Y, epochs=40, lr=0.3)
    assert (result.num_examples, result.steps) == (30, 120)
    after = trainer.evaluate(PARAMS + result.delta, X, Y)
    logits = trainer.predict(PARAMS + result.delta, X)
    assert logits.shape == (30, 6, 4)
    assert after.accuracy == (logits.argmax(-1) == Y).mean() == 1
    assert after.loss == pytest.approx(-np.log(softmax(np.float64(logits))[Y[..., None] == np.arange(4)]).mean())


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64])
def test_any_integers_are_tokens(kind):
    trainer = Trainer(TOKENS)
    assert (trainer.predict(PARAMS, X.astype(kind)) == trainer.predict(PARAMS, X)).all()
    assert (trainer.fit(PARAMS, X.astype(kind), Y).delta == trainer.fit(PARAMS, X.tolist(), Y).delta).all()


def spoil(value, kind=np.int64):
    x = X.astype(kind)
    x[4, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (X.astype(np.float32), Y, "x is float32, the model takes integer tokens"),
        (X > 2, Y, "x is bool, the model takes integer tokens"),
        (X.astype(str), Y, "the model takes integer tokens"),
        (spoil(7), Y, r"token 7 of sample 4 is not one of 0\.\.6"),
        (spoil(-1), Y, r"token -1 of sample 4 is not one of 0\.\.6"),
        (spoil(2**24 + 1), Y, r"of sample 4 is not one of 0\.\.6"),
        (spoil(2**63, np.uint64), Y, r"of sample 4 is not one of 0\.\.6"),
        (X[:, :5], Y, r"x has shape \(30, 5\)"),
        (X, Y[:, 0], r"expected integer labels \(30, 6\)"),
        (X, Y[:, :5], r"expected integer labels \(30, 6\)"),
        (X, Y + 1, r"label 4 of sample \d+ is out of range 0\.\.3"),
    ],
)
def test_wrong_tokens_and_labels_are_named(x, y, says):
    trainer = Trainer(TOKENS)
    for call in (trainer.fit, trainer.gradient, trainer.evaluate):
        with pytest.raises(DataError, match=says):
            call(PARAMS, x, y)
    if x is not X:
        with pytest.raises(DataError, match=says):
            trainer.predict(PARAMS, x)


@pytest.mark.parametrize("token", [0.5, -0.5, np.nan, np.inf, 1e30])
def test_the_core_itself_refuses_what_is_no_token(token):
    net = _core.Net(TOKENS, 4)
    x = X.astype(np.float32)
    x[4, 2] = token
    with pytest.raises(DataError, match="of sample 4 is not one of"):
        net.predict(PARAMS, x.ravel(), np.empty(30 * 24, np.float32))
    with pytest.raises(DataError, match="of sample 4 is not one of"):
        net.evaluate(PARAMS, x.ravel(), Y.ravel())
