"""Constants that a file computes from a weight which is trained elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import assert_computes

import edgefl
from edgefl.errors import ModelError


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
