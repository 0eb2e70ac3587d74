"""Errors about files: no number and no text from inside of EdgeFL or Python, and what to do at the end."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_files import onnx_model

import edgefl
from edgefl.errors import EdgeFLError, ModelError
from edgefl.onnx.faults import with_samples_named
from edgefl.onnx.folds import FOLDS
from edgefl.onnx.layout import OPEN
from edgefl.onnx.ops.table import OPS

INNER = re.compile(
    r"NoneType|has no attribute|not supported between|out of range|to unpack|cannot reshape|be broadcast|positional arg"
    r"|KeyError|\bkey\b.*not found|expected \w+ argument|object is not|invalid literal|unexpected keyword|zip\("
    r"|Traceback|dtype\(|numpy|StopIteration|TensorProto_|must be a|axes don't match|could not|malformed \("
)
ADVICE = {
    "QLinearConv": "quantize the result",
    "QuantizeLinear": "quantize the result",
    "DequantizeLinear": "quantize the result",
    "DynamicQuantizeLinear": "quantize the result",
    "MatMulInteger": "quantize the result",
    "ConvInteger": "quantize the result",
    "com.microsoft.MatMulNBits": "quantize the result",
    "com.microsoft.QLinearAdd": "quantize the result",
    "com.microsoft.DynamicQuantizeMatMul": "quantize the result",
    "onnx.brevitas.Quant": "quantize the result",
    "ai.onnx.ml.TreeEnsembleClassifier": "linear model",
    "ai.onnx.ml.TreeEnsembleRegressor": "linear model",
    "ai.onnx.ml.TreeEnsemble": "linear model",
    "ai.onnx.ml.SVMClassifier": "linear model",
    "Floor": "no slope",
    "Round": "no slope",
    "Sign": "no slope",
    "Loop": "unrolled",
    "Attention": "MatMul and Softmax",
    "TopK": "ReduceMax",
}


def node_of(key: str, inputs, outputs, **attributes) -> onnx.NodeProto:
    domain, _, op = key.rpartition(".")
    return helper.make_node(op, inputs, outputs, name="n", domain=domain, **attributes)


def file_of(nodes, tensors, opset: int = 17, shape=("N", 4, 4)) -> bytes:
    """x -> nodes -> MatMul by a weight -> y."""
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    weights.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "W"))
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["h", "W"], ["y"])], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    domains = [helper.make_opsetid(d, 1) for d in ("ai.onnx.ml", "com.microsoft", "onnx.brevitas")]
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *domains], ir_version=8)
    return made.SerializeToString()


def assert_plain(text: str) -> None:
    assert not INNER.search(text), text
    assert with_samples_named(text) == text, "the number that stands for the samples is in it"
    assert ": " in text, text


@pytest.mark.parametrize("key", ADVICE)
def test_what_to_do_instead(key):
    """With the input alone: what the op would need does not matter."""
    with pytest.raises(ModelError) as raised:
        edgefl.load(file_of([node_of(key, ["x"], ["h"])], {}))
    assert ADVICE[key] in str(raised.value) and key in str(raised.value)
    assert_plain(str(raised.value))


def attributes_of(rng) -> dict:
    """Attributes of many ops, of kinds that fit and that do not."""
    kinds = [1, -7, 2**40, 0.5, float("nan"), [1, 2], [-9, 9, 9], "SAME", [0.5], numpy_helper.from_array(np.ones(3))]
    known = (
        "axis axes perm to shape epsilon starts ends pads kernel_shape strides mode group keepdims alpha beta "
        "num_groups value hidden_size direction min max p blocksize split num_outputs transB ratio upper k size scales "
        "activations coefficients intercepts classlabels_int64s offset scale norm layout dilations"
    )
    names = known.split()
    chosen = rng.choice(len(names), rng.integers(0, 4), replace=False)
    return {names[at]: kinds[rng.integers(len(kinds))] for at in chosen}


TENSORS = {
    "f4": np.ones(4, np.float32), "f": np.float32(0.3), "f44": np.eye(4, dtype=np.float32), "i1": np.int64([1]),
    "i": np.int64(2), "i3": np.int64([0, -1, 4]), "big": np.int64([2**62]), "b": np.bool_([True, False, True, True]),
    "empty": np.zeros(0, np.float32), "e": np.zeros(0, np.int64), "d": np.ones((4, 4)),
    "w": np.ones((3, 4, 3, 3), np.float32),
}  # fmt: skip


@pytest.mark.parametrize("key", sorted({*OPS, *FOLDS}))
def test_whatever_is_wrong_with_a_node(key):
    """Too few and too many inputs, of every kind, and attributes that make no sense: a model, or a plain error."""
    rng, seen = np.random.default_rng(len(key)), 0
    for _ in range(40):
        pool = ["x", "s", "shape", "N", "", *TENSORS]
        names = [pool[at] for at in rng.integers(0, len(pool), rng.integers(0, 6))]
        if rng.random() < 0.7:
            names[:1] = ["x"]
        before = [
            helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["N"]),
        ]  # fmt: skip
        node = node_of(key, names, ["h", "h2", "h3"][: rng.integers(1, 4)], **attributes_of(rng))
        tensors = {**TENSORS, "zero": np.int64(0)}
        try:
            edgefl.load(file_of([*before, node], tensors, opset=int(rng.choice([9, 12, 17, 21]))))
        except EdgeFLError as error:
            assert_plain(str(error))
            seen += 1
    assert seen or key == "Identity", "nothing was refused"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{ h = Concat(x, x) y = MatMul(h, W) }", "its attribute 'axis' is missing"),
        ("{ h = Transpose<perm=1.5>(x) y = MatMul(h, W) }", "its attribute 'perm' is not of the kind"),
        ("{ h = Tanh(x, x) y = MatMul(h, W) }", "it has 2 inputs, and its op takes 1"),
    ],
)
def test_malformed_nodes_are_held_against_onnx(text, says):
    with pytest.raises(ModelError, match=says) as raised:
        edgefl.load(onnx_model(f"(float[N,6] x) => (float[N,3] y) <float[6,3] W> {text}").SerializeToString())
    assert_plain(str(raised.value))


def test_number_of_samples_is_a_letter():
    assert with_samples_named(f"({OPEN}, 3) and {4 * OPEN} of {OPEN + 2}, {OPEN - 1}") == "(N, 3) and 4N of N+2, N-1"
    assert with_samples_named(f"size {float(OPEN)}; 2147483646123 stays") == "size N; 2147483646123 stays"


def test_bytes_that_do_not_fill_a_shape():
    proto = onnx_model("(float[N,6] x) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }")
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-3]
    with pytest.raises(ModelError, match="'W' can't be read, its bytes do not fill its shape") as raised:
        edgefl.load(proto.SerializeToString())
    assert_plain(str(raised.value))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("parts", [0, -3, 2**31])
def test_a_split_into_absurdly_many_parts_is_refused_at_once(axis, parts):
    split = node_of("Split", ["x"], ["h"], axis=axis, num_outputs=parts)
    with pytest.raises(ModelError, match="mixes samples" if axis == 0 else "parts: check the export"):
        edgefl.load(file_of([split], {}, opset=18))
