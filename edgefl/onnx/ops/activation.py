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
from .arithmetic import calculate

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


def _of(trace: Trace, node: onnx.NodeProto, op: str, value: Value, *floats: float, ints: tuple[int, ...] = ()) -> Value:
    number = trace.append(node, op, [value.number], trace.shapes[value.number], ints=ints, floats=floats)
    return replace(value, number=number, tensor=node.output[0])


def _number(x: float) -> Const:
    return Const(np.array(x, np.float32))


def celu(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """alpha elu(x / alpha)"""
    value, alpha = value_of(node, x), attributes(node).get("alpha", 1.0)
    if not (alpha > 0 and np.isfinite(alpha)):
        raise refuse(node, f"alpha={alpha} is no positive number: check the export")
    inner = _of(trace, node, "elu", calculate(trace, node, "div", value, _number(alpha)), 1.0)
    return calculate(trace, node, "mul", inner, _number(alpha))


def prelu(trace: Trace, node: onnx.NodeProto, x: Item, slope: Item) -> Value:
    """x above 0, slope x below: relu x + slope (x - relu x). The slope is trained, one number too."""
    value = value_of(node, x)
    positive = _of(trace, node, "relu", value)
    below = calculate(trace, node, "sub", value, positive)
    return calculate(trace, node, "add", positive, calculate(trace, node, "mul", below, slope, single=True))


def selu(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    given = attributes(node)
    inner = _of(trace, node, "elu", value_of(node, x), given.get("alpha", 1.67326319217681884765625))
    return calculate(trace, node, "mul", inner, _number(given.get("gamma", 1.05070102214813232421875)))


def softsign(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """x / (1 + |x|)"""
    value = value_of(node, x)
    below = calculate(trace, node, "add", _of(trace, node, "abs", value), _number(1))
    return calculate(trace, node, "div", value, below)


def swish(trace: Trace, node: onnx.NodeProto, x: Item, default: float = 1.0) -> Value:
    """x sigmoid(alpha x)"""
    value, alpha = value_of(node, x), attributes(node).get("alpha", default)
    scaled = value if alpha == 1 else calculate(trace, node, "mul", value, _number(alpha))
    return calculate(trace, node, "mul", value, _of(trace, node, "sigmoid", scaled))


def thresholded(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    return _of(trace, node, "threshold", value_of(node, x), attributes(node).get("alpha", 1.0), 0.0)


ACTIVATION_OPS: dict[str, Handler] = {
    "Abs": _pointwise("abs"),
    "Celu": celu,
    "Clip": clip,
    "Cos": _pointwise("cos"),
    "Elu": _pointwise("elu", alpha=1.0),
    "Erf": _pointwise("erf"),
    "Exp": _pointwise("exp"),
    "Gelu": gelu,
    "HardSigmoid": _pointwise("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": _pointwise("hard_swish"),
    "LeakyRelu": _pointwise("leaky_relu", alpha=0.01),
    "Log": _pointwise("log"),
    "LogSoftmax": _softmax("log_softmax"),
    "Mish": _pointwise("mish"),
    "PRelu": prelu,
    "Relu": _pointwise("relu"),
    "Selu": selu,
    "Shrink": _pointwise("shrink", lambd=0.5, bias=0.0),
    "Sigmoid": _pointwise("sigmoid"),
    "Sin": _pointwise("sin"),
    "Softmax": _softmax("softmax"),
    "Softplus": _pointwise("softplus"),
    "Softsign": softsign,
    "Sqrt": _pointwise("sqrt"),
    "Swish": swish,
    "Tanh": _pointwise("tanh"),
    "ThresholdedRelu": thresholded,
}
