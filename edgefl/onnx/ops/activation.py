"""Functions of one number, and softmax along one axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import innermost
from ..items import Const, Handler, Item, Value, value_of
from ..masks import refuse_masked_rows
from ..nodes import attributes, refuse
from ..trace import Trace

LARGEST = float(np.finfo(np.float32).max)


def _pointwise(op: str, **defaults: float) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    """An op that maps every number by itself. `defaults` are its attributes, in the plan's order."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value, given = value_of(node, x), attributes(node)
        floats = [given.get(name, default) for name, default in defaults.items()]
        number = trace.append(node, op, [value.number], trace.shapes[value.number], floats=floats)
        return replace(value, number=number, tensor=node.output[0])

    return handler


def _softmax(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    """Along one axis; before opset 13 along that axis and all after it."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value = value_of(node, x, hidden=op == "softmax")
        rank, old = len(value.layout.axes), trace.opset < 13
        axis = attributes(node).get("axis", 1 if old else -1)
        if not -rank <= axis < rank:
            raise refuse(node, f"axis {axis} of {rank} axes does not exist: check the export")
        axes = range(axis % rank, rank if old else axis % rank + 1)
        refuse_masked_rows(node, value, axes)
        value, _, _ = innermost(trace, node, value, axes)
        number = trace.append(node, op, [value.number], trace.shapes[value.number])
        return replace(value, number=number, tensor=node.output[0], hidden=None)

    return handler


def clip(trace: Trace, node: onnx.NodeProto, x: Item, *limits: Item | None) -> Value:
    """Limits are inputs since opset 11, attributes before; either may be left out."""
    value, given = value_of(node, x), attributes(node)
    floats = [given.get("min", -LARGEST), given.get("max", LARGEST)]
    for at, limit in enumerate(limits):
        if limit is not None:
            if not isinstance(limit, Const) or limit.array.size != 1:
                raise refuse(node, "its limits are no constants: use fixed ones")
            floats[at] = float(np.clip(limit.array.ravel()[0], -LARGEST, LARGEST))
    number = trace.append(node, "clip", [value.number], trace.shapes[value.number], floats=floats)
    return replace(value, number=number, tensor=node.output[0])


def gelu(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, how = value_of(node, x), attributes(node).get("approximate", "none")
    if how not in ("none", "tanh"):
        raise refuse(node, f"approximate={how} is not known: use 'none' or 'tanh'")
    number = trace.append(node, "gelu", [value.number], trace.shapes[value.number], ints=[how == "tanh"])
    return replace(value, number=number, tensor=node.output[0])


ACTIVATION_OPS: dict[str, Handler] = {
    "Abs": _pointwise("abs"),
    "Clip": clip,
    "Elu": _pointwise("elu", alpha=1.0),
    "Erf": _pointwise("erf"),
    "Exp": _pointwise("exp"),
    "Gelu": gelu,
    "HardSigmoid": _pointwise("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": _pointwise("hard_swish"),
    "LeakyRelu": _pointwise("leaky_relu", alpha=0.01),
    "Log": _pointwise("log"),
    "LogSoftmax": _softmax("log_softmax"),
    "Relu": _pointwise("relu"),
    "Sigmoid": _pointwise("sigmoid"),
    "Softmax": _softmax("softmax"),
    "Softplus": _pointwise("softplus"),
    "Sqrt": _pointwise("sqrt"),
    "Tanh": _pointwise("tanh"),
}
