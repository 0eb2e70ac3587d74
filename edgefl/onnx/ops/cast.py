"""Casts of activations, tokens and conditions. A plan has float32 alone, in which whole numbers are held exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from ..folds import cast_to
from ..items import Condition, Const, Handler, Item, Value
from ..nodes import attributes, refuse
from ..trace import Trace
from .condition import number_of
from .reduce import pointwise

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
WHOLE = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def cast(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    """A condition as a number is 1 or 0."""
    to = attributes(node)["to"]
    if isinstance(x, Condition):
        if to == BOOL:
            return x
        if to not in (FLOAT, *WHOLE):
            raise refuse(node, "casts a comparison to another type: EdgeFL trains float32, export the model in float32")
        return replace(number_of(trace, node, x), tokens=to in WHOLE)
    if not isinstance(x, Value):
        return x
    if to == BOOL:
        return Condition(pointwise(trace, node, "abs", replace(x, tokens=False)))
    if x.tokens and to in WHOLE:
        return x
    if to != FLOAT:
        raise refuse(node, "casts activations to another type: EdgeFL trains float32, export the model in float32")
    return replace(x, tokens=False)


def cast_like(trace: Trace, node: onnx.NodeProto, x: Item, like: Item) -> Item:
    """PyTorch's newer exporter, unless it optimizes, casts each constant to the type of the activations beside it."""
    if isinstance(like, Value) and not like.tokens:
        if isinstance(x, Const):
            return cast_to(x, np.dtype(np.float32))
        if isinstance(x, Condition):
            return number_of(trace, node, x)
        if isinstance(x, Value):
            return replace(x, tokens=False)
    if isinstance(like, Value) and isinstance(x, Const):
        return cast_to(x, np.dtype(np.int64))
    if isinstance(x, Value) and isinstance(like, Value) and x.tokens:
        return x
    raise refuse(node, "casts activations to whole numbers: export the model in float32")


CAST_OPS: dict[str, Handler] = {"Cast": cast, "CastLike": cast_like}
