"""ONNX's own node tests (onnx.backend.test), each made a model that EdgeFL can be asked to train.

A node test has inputs and expected outputs, but neither samples nor trained weights. Two models are made of it. In
`one`, the whole of the first float input is a single sample. In `rows`, its first axis holds the samples. All other
inputs become initializers, and the first output goes through a dense layer with known weights. A model that EdgeFL
refuses is `refused`; a prediction that differs from the expected one is `wrong`, and there must not be any.

    python tests/support/backend_cases.py          prints the table of docs/coverage.md
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgefl
from edgefl.errors import EdgeFLError
from edgefl.onnx.nodes import op_key
from edgefl.onnx.ops.table import OPS

RIGHT, REFUSED, WRONG = "right", "refused", "wrong"
FEATURES = 4  # of the dense layer at the end
LARGEST = 1 << 16  # elements of an output that are looked at
CLOSE = 1e-4  # of the largest expected number


@dataclass(frozen=True)
class Case:
    """A node test of one node: its model and its first set of data."""

    name: str
    op: str
    model: onnx.ModelProto
    inputs: list[np.ndarray]
    expected: np.ndarray


@dataclass(frozen=True)
class Verdict:
    what: str
    why: str


@cache
def cases() -> dict[str, Case]:
    """Every node test whose graph is one node of an op that EdgeFL claims, computed from float32 numbers."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(load_model_tests(kind="node"))
    made = (_case(test) for test in found)
    return {case.name: case for case in made if case is not None}


def _case(test: Any) -> Case | None:
    graph = test.model.graph
    if len(graph.node) != 1 or op_key(graph.node[0]) not in OPS or not test.data_sets:
        return None
    if any(given.name == "training_mode" and given.i for given in graph.node[0].attribute):
        return None  # EdgeFL trains like this, but predicts with the running statistics: test_training_mode.py
    if any(attribute.name == "training_mode" and attribute.i for attribute in graph.node[0].attribute):
        return None  # it expects the batch's statistics; EdgeFL takes such a file in the form that predicts
    inputs, outputs = test.data_sets[0]
    if not all(isinstance(array, np.ndarray) for array in (*inputs, *outputs)):
        return None
    if not inputs or inputs[0].dtype != np.float32 or outputs[0].dtype != np.float32 or not inputs[0].size:
        return None
    return Case(test.name, op_key(graph.node[0]), test.model, list(inputs), outputs[0])


def judge(case: Case) -> Verdict:
    """Right if one model at least was taken and predicted what is expected, and none was taken and did not."""
    verdicts = [_judge(case, way) for way in ("one", "rows")]
    for what in (WRONG, RIGHT):
        if found := next((verdict for verdict in verdicts if verdict.what == what), None):
            return found
    return verdicts[0]


def _judge(case: Case, way: str) -> Verdict:
    x, expected = case.inputs[0], case.expected
    if expected.size > LARGEST:
        return Verdict(REFUSED, "too large to look at")
    if not np.isfinite(expected).all():
        return Verdict(REFUSED, "expects numbers that are not finite")
    samples = 1 if way == "one" else x.shape[0] if x.ndim else 0
    if way == "rows" and (x.ndim < 2 or not expected.ndim or expected.shape[0] != samples):
        return Verdict(REFUSED, "its output has other rows")
    weights = np.random.default_rng(0).normal(size=(expected.size // samples, FEATURES)).astype(np.float32)
    try:
        model = edgefl.load(_wrapped(case, way, weights), loss="mse")
        given = x.reshape(1 if model.alone else samples, *model.plan.input_shape)  # a file may keep its rows together
        ours = edgefl.Trainer(model.plan, batch=samples).predict(model.params, given)
    except EdgeFLError as error:
        return Verdict(REFUSED, str(error))
    theirs = expected.reshape(samples, -1).astype(np.float64) @ weights
    scale = max(1.0, float(np.abs(theirs).max()))
    error = float(np.abs(ours.reshape(samples, FEATURES) - theirs).max())
    if error > CLOSE * scale and (again := _by_onnxruntime(case)) is not None:
        error = float(np.abs(ours.reshape(samples, FEATURES) - again.reshape(samples, -1) @ weights).max())
    return Verdict(RIGHT, "") if error <= CLOSE * scale else Verdict(WRONG, f"{way}: off by {error:.2g} of {scale:.2g}")


def _by_onnxruntime(case: Case) -> np.ndarray | None:
    """What onnxruntime makes of the test, where it differs from ONNX's own reference: EdgeFL follows onnxruntime."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = zip(case.model.graph.input, case.inputs, strict=True)
        found: np.ndarray = session.run(None, {info.name: array for info, array in given})[0]
    except Exception:  # it does not know the op's version
        return None
    return found


def _wrapped(case: Case, way: str, weights: np.ndarray) -> bytes:
    graph, x = case.model.graph, case.inputs[0]
    node = onnx.NodeProto.FromString(graph.node[0].SerializeToString())
    before, after = [], ["flat", "weights"]
    if way == "one":
        before = [helper.make_node("Reshape", ["whole", "own_shape"], [graph.input[0].name])]
        shape: list[int] = [1, x.size]
        rows = 1
    else:
        shape, rows = list(x.shape), x.shape[0]
    given = "whole" if way == "one" else graph.input[0].name
    named = [numpy_helper.from_array(array, info.name) for info, array in zip(graph.input, case.inputs, strict=True)]
    constants: Mapping[str, np.ndarray] = {
        "own_shape": np.array(x.shape, np.int64),
        "flat_shape": np.array([rows, weights.shape[0]], np.int64),
        "weights": weights,
    }
    nodes = [
        *before,
        node,
        helper.make_node("Reshape", [graph.output[0].name, "flat_shape"], ["flat"]),
        helper.make_node("MatMul", after, ["out"]),
    ]
    made = helper.make_graph(
        nodes,
        case.name,
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [rows, FEATURES])],
        [*named[1:], *(numpy_helper.from_array(array, name) for name, array in constants.items())],
    )
    return helper.make_model(made, opset_imports=list(case.model.opset_import), ir_version=10).SerializeToString()


def table() -> Iterator[str]:
    """Lines of Markdown: for each op the tests that EdgeFL gets right and those that it refuses."""
    counts: dict[str, Counter[str]] = {}
    for case in cases().values():
        counts.setdefault(case.op, Counter())[judge(case).what] += 1
    yield "| op | right | refused | wrong |"
    yield "|---|---|---|---|"
    for op, found in sorted(counts.items()):
        yield f"| {op} | {found[RIGHT]} | {found[REFUSED]} | {found[WRONG]} |"
    whole = sum(counts.values(), Counter())
    yield f"| **all** | **{whole[RIGHT]}** | **{whole[REFUSED]}** | **{whole[WRONG]}** |"


if __name__ == "__main__":
    print("\n".join(table()))
