"""Constants that a file computes from a weight which is trained elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import assert_computes, from_pytorch, onnx_model

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator


def file(compute: list[onnx.NodeProto], last: onnx.NodeProto) -> bytes:
    """y of x W + b, then W2, then `last`, which reads V; `compute` makes V."""
    rng = np.random.default_rng(0)
    arrays = {"W": rng.normal(size=(4, 4)), "W2": rng.normal(size=(4, 4)), "b": np.abs(rng.normal(size=4)) + 0.1}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["first"]),
        helper.make_node("Add", ["first", "b"], ["second"]),
        helper.make_node("MatMul", ["second", "W2"], ["third"]),
        *compute,
        last,
    ]
    graph = helper.make_graph(
        nodes, "stale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
        + [numpy_helper.from_array(np.full(4, fill, np.float32), name) for name, fill in (("zeros", 0), ("ones", 1))],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("op", ["Sqrt", "Exp", "Neg"])
@pytest.mark.parametrize("use", ["Add", "Mul"])
def test_numbers_computed_from_a_trained_weight_are_refused(op, use):
    made = file([helper.make_node(op, ["b"], ["V"])], helper.make_node(use, ["third", "V"], ["y"]))
    with pytest.raises(ModelError, match=r"reads numbers computed from 'b', .* trains: .*freeze=\['b'\]"):
        edgefl.load(made, loss="mse")
    assert_computes(edgefl.load(made, loss="mse", freeze=["b"]))


@pytest.mark.parametrize(("other", "fits"), [("zeros", True), ("ones", False)])
def test_a_product_with_zeros_does_not_depend_on_the_weight(other, fits):
    compute = [helper.make_node("MatMul", [other, "W"], ["V"])]
    made = file(compute, helper.make_node("Add", ["third", "V"], ["y"]))
    if fits:
        assert_computes(edgefl.load(made, loss="mse"))
        return
    with pytest.raises(ModelError, match="reads numbers computed from 'W'"):
        edgefl.load(made, loss="mse")


def test_sizes_of_a_trained_weight_may_be_read():
    compute = [
        helper.make_node("Shape", ["b"], ["size"]),
        helper.make_node("Cast", ["size"], ["V"], to=TensorProto.FLOAT),
    ]
    made = edgefl.load(file(compute, helper.make_node("Div", ["third", "V"], ["y"])), loss="mse")
    assert_computes(made)


@pytest.mark.parametrize(
    "compute",
    [
        "d = Cast<to=11>(b) e = Mul(d, d) f = Cast<to=1>(e) y = Mul(s, f)",
        "d = Greater(b, zero) y = Where(d, s, zero)",
        "k = MatMul(row, V) t = Add(s, k) y = MatMul(t, V)",
        "k = MatMul(row, V) j = Add(k, c) t = Add(s, j) y = MatMul(t, V)",
    ],
    ids=["float64", "condition", "weight of zeros", "zeros of a weight of zeros"],
)
def test_what_is_computed_is_followed_through_types_and_zeros(compute):
    text = """(float[N,4] x) => (float[N,4] y)
        <float[4,4] W, float[4] b, float[4] c, float[4,4] V, float[1,4] row, float zero = {0}>
        { p = MatMul(x, W) s = Add(p, b) """
    file = onnx_model(text + compute + " }", V=np.zeros((4, 4), np.float32))
    with pytest.raises(ModelError, match="reads numbers computed from"):
        edgefl.load(file, loss="mse")


FROZEN_TWIN = """(float[N,4] x) => (float[N,4] y)
    <float[4,4] W, float[4,4] V, float[4] a__weight, float[4] a__bias, float[4] a__mean, float[4] a__var>
    { b__weight = Identity(a__weight) b__bias = Identity(a__bias) b__mean = Identity(a__mean) b__var = Identity(a__var)
      s = MatMul(x, W) r = BatchNormalization(s, a__weight, a__bias, a__mean, a__var)
      t = MatMul(r, V) y = BatchNormalization(t, b__weight, b__bias, b__mean, b__var) }"""
PLAIN_TWIN = """(float[N,4] x) => (float[N,4] y) <float[4,4] W, float[4,4] V, float[4] val_1, float[4] val_0>
    { s = MatMul(x, W) m = Mul(s, val_1) l = LayerNormalization(m, val_1, val_0) t = MatMul(l, V) y = Add(t, val_0) }"""


@pytest.mark.parametrize(("text", "freeze"), [(FROZEN_TWIN, ["a."]), (PLAIN_TWIN, [])], ids=["batch", "layer"])
def test_what_trains_leaves_a_tensor_that_another_node_reads_as_fixed(text, freeze):
    """A frozen normalization has the same tensors as one that trains."""
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    arrays = {"a__weight": ones, "a__bias": zeros, "a__mean": zeros, "a__var": ones, "val_1": ones, "val_0": zeros}
    model = edgefl.load(from_pytorch(onnx_model(text, **arrays)), loss="mse", freeze=[f"{name}*" for name in freeze])
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(32, 4)).astype(np.float32) for _ in range(2))
    trainer = edgefl.Trainer(model.plan)
    after = model.params + trainer.fit(model.params, x, y, batch_size=8, lr=0.1).delta
    np.testing.assert_allclose(OnnxEvaluator(model).predict(after, x), trainer.predict(after, x), rtol=0, atol=1e-5)
