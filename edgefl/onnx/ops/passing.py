"""Ops that compute nothing when a model predicts: they pass their input on, or make an output for people of it."""

from __future__ import annotations

from dataclasses import replace

import onnx

from ..items import Const, Handler, Item, Readout, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace


def dropout(trace: Trace, node: onnx.NodeProto, x: Item, ratio: Item | None = None, mode: Item | None = None) -> Item:
    """Active in training only; inference passes its input through."""
    value = value_of(node, x)
    share = float(ratio.array.ravel()[0]) if isinstance(ratio, Const) else attributes(node).get("ratio", 0.5)
    if not 0 <= share < 1 or (ratio is not None and not isinstance(ratio, Const)):
        raise refuse(node, f"ratio {share:g} is not trained: use a constant of 0 or more, below 1")
    if mode is not None and (not isinstance(mode, Const) or mode.array.any()):
        raise refuse(node, "it was exported in training mode, so that no run gives the same: export with mode false")
    if any(name and trace.readers.get(name) for name in node.output[1:]):
        raise refuse(node, "its mask is read: use its first output alone")
    if share == 0:
        return replace(value, tensor=node.output[0])
    number = trace.append(node, "dropout", [value.number], trace.shapes[value.number], floats=[share])
    return replace(value, number=number, tensor=node.output[0])


def identity(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    return x


def readout(trace: Trace, node: onnx.NodeProto, *inputs: Item) -> Readout:
    """An output for people: the label, or the classes by name."""
    found = next((item for item in inputs if isinstance(item, Value | Readout)), None)
    if found is None:
        raise refuse(node, "it reads no prediction: leave it out of the export")
    return Readout(found if isinstance(found, Value) else found.value)


PASSING_OPS: dict[str, Handler] = {
    "ArgMax": readout,
    "Dropout": dropout,
    "Identity": identity,
    "ai.onnx.ml.Binarizer": readout,
    "ai.onnx.ml.ZipMap": readout,
}
