"""Numbers along axes of a sample taken together: means, sums, norms, extremes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx

from ..arrange import in_memory_order, innermost, settled
from ..items import Const, Handler, Item, Value, axes_of, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import calculate
from .shape import axis_of, const_of, part_of

LONGEST = 1024  # of a sum along an axis, whose constant has the square of it
SMALLEST_NORM = 1e-12  # below it a vector is taken as 0, as torch's normalize does


def reduced(trace: Trace, node: onnx.NodeProto, op: str, value: Value, axes: Sequence[int], *, keep: bool) -> Value:
    """The plan's `op` along these axes of a sample, which become 1, or disappear unless `keep`."""
    chosen = sorted(axis_of(node, value, axis) for axis in axes)
    value, order = settled(trace, node, value)
    sizes = {at: 1 if at in chosen else value.layout.size(at) for at in order}
    rest = [sizes[at] for at in order if at not in chosen]
    number = trace.append(node, op, [value.number], rest, ints=sorted(order.index(axis) for axis in chosen))
    layout = value.layout.packed(order, sizes)
    return Value(number, layout if keep else layout.squeezed(chosen), node.output[0])


def _axes(node: onnx.NodeProto, axes: Item | None) -> tuple[int, ...]:
    """An input since opset 18 (13 for sums), an attribute before. All axes would mix samples."""
    given = axes_of(node, const_of(node, axes))
    if not given:
        raise refuse(node, "it takes all samples together: name the axes of one")
    return given


def reduction(op: str) -> Callable[..., Value]:
    def handler(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Value:
        keep = bool(attributes(node).get("keepdims", 1))
        return reduced(trace, node, op, value_of(node, x), _axes(node, axes), keep=keep)

    return handler


def total(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Value:
    """The mean, times the number of elements."""
    averaged, shape = reduction("mean")(trace, node, x, axes), value_of(node, x).layout.shape
    count = prod(shape[axis] for axis in _axes(node, axes))
    return calculate(trace, node, "mul", averaged, Const(np.array(count, np.float32)))


def pointwise(trace: Trace, node: onnx.NodeProto, op: str, value: Value, *floats: float) -> Value:
    number = trace.append(node, op, [value.number], trace.shapes[value.number], floats=floats)
    return replace(value, number=number, tensor=node.output[0])


def total_of(inner: str) -> Callable[..., Value]:
    """The sum of |x|, or of x times x."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Value:
        value = value_of(node, x)
        if inner == "square":
            return total(trace, node, calculate(trace, node, "mul", value, value), axes)
        return total(trace, node, pointwise(trace, node, inner, value), axes)

    return handler


def log_of_total(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Value:
    return pointwise(trace, node, "log", total(trace, node, x, axes))


def lp_normalization(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """x by the sum of |x| (p=1) or the root of the sum of squares (p=2) along one axis."""
    value, given = value_of(node, x), attributes(node)
    axis, p = axis_of(node, value, given.get("axis", -1)), given.get("p", 2)
    if p not in (1, 2):
        raise refuse(node, f"p={p} is not known: use 1 or 2")
    if p == 2:
        norm = reduced(trace, node, "norm", value, [axis], keep=True)
    else:
        norm = reduced(trace, node, "mean", pointwise(trace, node, "abs", value), [axis], keep=True)
        norm = calculate(trace, node, "mul", norm, Const(np.array(value.layout.size(axis), np.float32)))
    norm = pointwise(trace, node, "clip", norm, SMALLEST_NORM, float(np.finfo(np.float32).max))
    return calculate(trace, node, "div", value, norm)


def product(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Value:
    """One half times the other, until one is left, so that a 0 has a gradient too."""
    value = value_of(node, x)
    chosen = sorted(axis_of(node, value, axis) for axis in _axes(node, axes))
    for axis in chosen:
        rest: list[Value] = []
        while (size := value.layout.size(axis)) > 1:
            half = size // 2
            if size % 2:
                rest.append(part_of(trace, node, value, axis, start=size - 1, size=1))
            first, other = (part_of(trace, node, value, axis, start=at, size=half) for at in (0, half))
            value = calculate(trace, node, "mul", first, other)
        for last in rest:
            value = calculate(trace, node, "mul", value, last)
    keep = bool(attributes(node).get("keepdims", 1))
    return replace(value, layout=value.layout if keep else value.layout.squeezed(chosen), tensor=node.output[0])


def cumulative_sum(trace: Trace, node: onnx.NodeProto, x: Item, along: Item) -> Value:
    """A product with a triangle of ones, which is a constant."""
    value, given, at = value_of(node, x), attributes(node), const_of(node, along)
    assert at is not None
    axis = axis_of(node, value, int(at.array.ravel()[0]))
    value, block, size = innermost(trace, node, value, [axis])
    if size > LONGEST:
        raise refuse(node, f"it adds up {size} numbers: use at most {LONGEST}")
    triangle = np.triu(np.ones((size, size), np.float32), int(bool(given.get("exclusive", 0))))
    triangle = triangle.T if given.get("reverse", 0) else triangle
    order = in_memory_order(block)
    param = trace.constant(node, "triangle", triangle[order][:, order])
    number = trace.append(node, "dense", [value.number], trace.shapes[value.number], params=[param])
    return replace(value, number=number, tensor=node.output[0])


REDUCE_OPS: dict[str, Handler] = {
    "CumSum": cumulative_sum,
    "LpNormalization": lp_normalization,
    "ReduceL1": total_of("abs"),
    "ReduceL2": reduction("norm"),
    "ReduceLogSum": log_of_total,
    "ReduceLogSumExp": reduction("log_sum_exp"),
    "ReduceMax": reduction("reduce_max"),
    "ReduceMean": reduction("mean"),
    "ReduceMin": reduction("reduce_min"),
    "ReduceProd": product,
    "ReduceSum": total,
    "ReduceSumSquare": total_of("square"),
}
