"""Pooling: the largest, the mean or a norm of the numbers in a window. With three axes beside the channels a window
goes along one of them, as in torch's local response normalization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..items import Const, Handler, Item, Value, value_of
from ..layout import Factor, Layout
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import calculate
from .reduce import pointwise
from .window import Window, image, made, pixels, window_of

SMALLEST_SUM = 1e-30  # of squares: below it a norm has no gradient
LARGEST = float(np.finfo(np.float32).max)


def pool(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value = value_of(node, x)
        if len(value.layout.axes) == 5:
            return _along_one(trace, node, op, value)
        return _pooled(trace, node, op, value, attributes(node).get("count_include_pad", 0))

    return handler


def _pooled(trace: Trace, node: onnx.NodeProto, op: str, value: Value, counts: int) -> Value:
    channels, *space = image(node, value)
    window = window_of(node, value, None)
    if any(name and trace.readers.get(name) for name in node.output[1:]):
        raise refuse(node, "its indices are read: use pooling without them")
    if any(pad >= size for pad, size in zip(window.begin + window.end, window.kernel * 2, strict=True)):
        raise refuse(node, f"pads {window.begin + window.end} leave windows of padding alone: use smaller pads")
    if any(step > size for step, size in zip(window.dilations, space, strict=True)):
        raise refuse(node, f"dilations {list(window.dilations)} are larger than {value.layout}: use smaller ones")
    number = pixels(trace, node, value)
    if op == "avgpool" and counts and window.beyond != (0, 0):
        number, window, counts = _padded(trace, node, number, window)
    ints = [*window.kernel, *window.ints] + ([counts] if op == "avgpool" else [])
    ints += window.dilations if window.dilations != (1, 1) else ()
    return made(trace, node, value, trace.append(node, op, [number], (*window.output, channels), ints=ints))


def _padded(trace: Trace, node: onnx.NodeProto, number: int, window: Window) -> tuple[int, Window, int]:
    """The padding that counts as zeros, apart: what ceil_mode lets a window reach beyond it does not count."""
    ends = [end - more for end, more in zip(window.end, window.beyond, strict=True)]
    high, wide, channels = trace.shapes[number]
    shape = (high + window.begin[0] + ends[0], wide + window.begin[1] + ends[1], channels)
    number = trace.append(node, "pad", [number], shape, ints=[*window.begin, 0, *ends, 0], floats=[0.0])
    return number, replace(window, begin=(0, 0), end=window.beyond), 0


def _along_one(trace: Trace, node: onnx.NodeProto, op: str, value: Value) -> Value:
    """(samples, channels, depth, height, width): along the only one of the last three axes that the window is wide in,
    with all others as channels."""
    given, layout = attributes(node), value.layout
    sizes = {name: list(given.get(name) or default) for name, default in (
        ("kernel_shape", [0]), ("strides", [1] * 3), ("dilations", [1] * 3), ("pads", [0] * 6))}  # fmt: skip
    if not layout.leads or any(len(sizes[name]) != (6 if name == "pads" else 3) for name in sizes):
        raise refuse(node, f"its window does not fit {layout}: use (samples, channels, [depth,] [height,] width)")
    pads = list(zip(sizes["pads"][:3], sizes["pads"][3:], strict=True))
    wide = [at for at in range(3) if sizes["kernel_shape"][at] != 1 or sizes["strides"][at] != 1 or any(pads[at])]
    if len(wide) > 1 or given.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refuse(node, "it pools along several of three axes: pool along one, or over two of two axes")
    at = wide[0] if wide else 0
    axis, others = at + 2, [other for other in range(1, 5) if other != at + 2]
    narrow: dict[str, Any] = {name: [sizes[name][at]] for name in ("kernel_shape", "strides", "dilations")} | {
        "pads": list(pads[at])
    }
    kept = {name: given[name] for name in ("ceil_mode", "count_include_pad") if name in given}
    flat = helper.make_node(node.op_type, list(node.input), list(node.output), name=node.name, **narrow, **kept)
    merged = tuple(factor for other in others for factor in layout.axes[other])
    value = replace(value, layout=Layout((layout.axes[0], merged, layout.axes[axis])))
    found = _pooled(trace, flat, op, value, given.get("count_include_pad", 0))
    axes: list[tuple[Factor, ...]] = [found.layout.axes[0], *[()] * 4]
    axes[axis], stride = found.layout.axes[2], 1  # channels are the innermost in the plan
    for other in reversed(others):
        size = layout.size(other)
        axes[other] = (Factor(size, stride),) if size > 1 else ()
        stride *= size
    return replace(found, layout=Layout(tuple(axes)))


def lp_pool(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """The sum of |x| in each window (p=1), or the root of the sum of squares (p=2)."""
    value, p = value_of(node, x), attributes(node).get("p", 2)
    window = window_of(node, value, None)
    if p not in (1, 2) or window.beyond != (0, 0):
        raise refuse(node, f"p={p}, or ceil_mode, is not known: use p=1 or 2, without ceil_mode")
    inner = pointwise(trace, node, "abs", value) if p == 1 else calculate(trace, node, "mul", value, value)
    mean = _pooled(trace, node, "avgpool", inner, 1)
    total = calculate(trace, node, "mul", mean, Const(np.array(prod(window.kernel), np.float32)))
    if p == 1:
        return total
    return pointwise(trace, node, "sqrt", pointwise(trace, node, "clip", total, SMALLEST_SUM, LARGEST))


def global_max(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    channels, height, width = image(node, value)
    ints = [height, width, height, width, 0, 0, 0, 0]
    return made(
        trace, node, value, trace.append(node, "maxpool", [pixels(trace, node, value)], (1, 1, channels), ints=ints)
    )


def global_average(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    channels, *_ = image(node, value)
    number = trace.append(node, "mean", [pixels(trace, node, value)], (channels,), ints=[0, 1])
    space = range(2, len(value.layout.axes))
    sizes = {1: channels} | dict.fromkeys(space, 1)
    return Value(number, value.layout.packed([*space, 1], sizes), node.output[0])


POOL_OPS: dict[str, Handler] = {
    "AveragePool": pool("avgpool"),
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "LpPool": lp_pool,
    "MaxPool": pool("maxpool"),
}
