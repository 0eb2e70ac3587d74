"""Constants computed from constants: sizes, masks, a scale. They can't be written back to the file and are not trained.

To add an op: give it a line in `COMPUTED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import numpy as np
import onnx

from .items import Const, axes_of
from .nodes import attributes, refuse
from .trace import Trace

LARGEST = 2**26  # elements of a constant that a file may ask for in a few bytes


def bounded(node: onnx.NodeProto, size: int) -> None:
    if not 0 <= size <= LARGEST:
        raise refuse(node, f"makes a constant of {size} elements: use at most {LARGEST}")


def shape(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    bounds = attributes(node)
    return Const(np.array(x.array.shape[bounds.get("start", 0) : bounds.get("end")], np.int64))


def range_(trace: Trace, node: onnx.NodeProto, start: Const, limit: Const, delta: Const) -> Const:
    first, last, step = (given.array.ravel()[0] for given in (start, limit, delta))
    if not abs(last - first) <= LARGEST * abs(step):
        raise refuse(node, f"counts from {first} to {last}: export the model with fixed sizes")
    return Const(np.arange(first, last, step).astype(start.array.dtype))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ONNX's Div rounds whole numbers towards zero; NumPy's // rounds down."""
    quotient: np.ndarray
    if a.dtype.kind == "f":
        quotient = a / b
    elif not b.all():
        raise ValueError("division by zero")
    else:
        quotient = (np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)).astype(a.dtype)
    return quotient


def _arithmetic(compute: Callable[..., np.ndarray]) -> Callable[..., Const]:
    """A handler that computes with constants, in their own type."""

    def handler(trace: Trace, node: onnx.NodeProto, *inputs: Const) -> Const:
        bounded(node, math.prod(np.broadcast_shapes(*(given.array.shape for given in inputs))))
        with np.errstate(all="ignore"):
            return Const(np.asarray(compute(*(given.array for given in inputs))))

    return handler


def add(trace: Trace, node: onnx.NodeProto, a: Const, b: Const) -> Const:
    """A weight plus zeros that were computed stays the weight: a recurrent net that is written step by step has this,
    since its state begins with zeros."""
    made = _arithmetic(np.add)(trace, node, a, b)
    for kept, other in ((a, b), (b, a)):
        if other.where is None and not other.array.any() and made.array.size == kept.array.size:
            moved = kept.map(lambda array: array.reshape(made.array.shape))
            return replace(moved, made_of=kept.made_of | other.made_of)
    return made


def matmul(trace: Trace, node: onnx.NodeProto, a: Const, b: Const) -> Const:
    bounded(node, a.array.size * b.array.shape[-1])
    return Const(np.asarray(np.matmul(a.array, b.array)))


def trilu(trace: Trace, node: onnx.NodeProto, x: Const, k: Const | None = None) -> Const:
    cut = np.triu if attributes(node).get("upper", 1) else np.tril
    return Const(np.asarray(cut(x.array, int(k.array.ravel()[0]) if k is not None else 0)))


def cumulative_sum(trace: Trace, node: onnx.NodeProto, x: Const, axis: Const) -> Const:
    given, along = attributes(node), int(axis.array.ravel()[0])
    turned = np.flip(x.array, along) if given.get("reverse", 0) else x.array
    sums = np.cumsum(turned, along, turned.dtype) - (turned if given.get("exclusive", 0) else 0)
    return Const((np.flip(sums, along) if given.get("reverse", 0) else sums).astype(x.array.dtype))


def size(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    return Const(np.array(x.array.size, np.int64))


def _reduction(compute: Callable[..., np.ndarray]) -> Callable[..., Const]:
    """A handler that takes numbers together along axes, all of them if none are named."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Const, axes: Const | None = None) -> Const:
        along, given = axes_of(node, axes), attributes(node)
        if not along and given.get("noop_with_empty_axes", 0):
            return x
        keep = bool(given.get("keepdims", 1))
        return Const(np.asarray(compute(x.array, axis=along or None, keepdims=keep), x.array.dtype))

    return handler


def _many(compute: Callable[..., np.ndarray]) -> Callable[..., Const]:
    """A handler of any number of constants."""
    return _arithmetic(lambda *arrays: reduce(compute, arrays))


COMPUTED: dict[str, Callable[..., Const]] = {
    "Abs": _arithmetic(np.abs),
    "Add": add,
    "And": _arithmetic(np.logical_and),
    "Ceil": _arithmetic(np.ceil),
    "Cos": _arithmetic(np.cos),
    "CumSum": cumulative_sum,
    "Div": _arithmetic(_divide),
    "Equal": _arithmetic(np.equal),
    "Exp": _arithmetic(np.exp),
    "Floor": _arithmetic(np.floor),
    "Greater": _arithmetic(np.greater),
    "GreaterOrEqual": _arithmetic(np.greater_equal),
    "IsInf": _arithmetic(np.isinf),
    "IsNaN": _arithmetic(np.isnan),
    "Less": _arithmetic(np.less),
    "LessOrEqual": _arithmetic(np.less_equal),
    "Log": _arithmetic(np.log),
    "MatMul": matmul,
    "Max": _many(np.maximum),
    "Min": _many(np.minimum),
    "Mod": _arithmetic(np.mod),
    "Mul": _arithmetic(np.multiply),
    "Neg": _arithmetic(np.negative),
    "Not": _arithmetic(np.logical_not),
    "Or": _arithmetic(np.logical_or),
    "Pow": _arithmetic(lambda a, b: np.power(a, b).astype(a.dtype)),
    "Range": range_,
    "Reciprocal": _arithmetic(lambda a: (1 / a).astype(a.dtype)),
    "ReduceMax": _reduction(np.max),
    "ReduceMean": _reduction(np.mean),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Round": _arithmetic(np.rint),
    "Shape": shape,
    "Sign": _arithmetic(np.sign),
    "Sin": _arithmetic(np.sin),
    "Size": size,
    "Sqrt": _arithmetic(np.sqrt),
    "Sub": _arithmetic(np.subtract),
    "Sum": _many(np.add),
    "Trilu": trilu,
    "Where": _arithmetic(np.where),
    "Xor": _arithmetic(np.logical_xor),
}
