"""Pad: with a constant, a reflection, the edge or the other end. Negative pads cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ..arrange import settled
from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .along import along
from .shape import const_of, part_of, seen

MIRRORS = ("reflect", "edge", "wrap")  # their places are the modes in the plan (src/ops/along.c)


def pad(trace: Trace, node: onnx.NodeProto, x: Item, *given: Item | None) -> Value:
    """Pads, value and axes are inputs since opset 11, attributes before."""
    value, bounds = value_of(node, x), attributes(node)
    for name, item in zip(("pads", "value", "axes"), given, strict=False):
        if (const := const_of(node, item)) is not None:
            bounds[name] = const.array.ravel().tolist()
    rank, pads, mode = len(value.layout.axes), [int(size) for size in bounds["pads"]], bounds.get("mode", "constant")
    axes = [int(axis) % rank for axis in bounds.get("axes", range(rank))]
    ends = dict(zip(axes, zip(pads, pads[len(axes) :], strict=False), strict=True))
    if mode not in ("constant", *MIRRORS) or any(ends.get(value.layout.samples, ())):
        raise refuse(node, f"mode={mode}, pads={pads} are not trained: pad each sample, not the axis of the samples")
    if mode == "constant":
        value = _filled(trace, node, _cut(trace, node, value, ends), ends, bounds)
    else:
        for axis, (before, after) in ends.items():
            value = _mirrored(trace, node, value, mode, axis, before=before, after=after)
    return seen(node, value, value.layout)


Ends = dict[int, tuple[int, int]]


def _cut(trace: Trace, node: onnx.NodeProto, value: Value, ends: Ends) -> Value:
    """Without what negative pads take away."""
    for axis, (before, after) in ends.items():
        start, size = max(0, -before), value.layout.shape[axis] + min(0, before) + min(0, after)
        if min(before, after) < 0:
            if size < 1:
                raise refuse(node, f"its pads leave nothing of axis {axis} of {value.layout}: check the export")
            value = part_of(trace, node, value, axis, start=start, size=size)
    return value


def _filled(trace: Trace, node: onnx.NodeProto, value: Value, ends: Ends, given: dict[str, Any]) -> Value:
    fill = np.ravel(given.get("value", 0.0))
    if all(max(pads) <= 0 for pads in ends.values()) and any(min(pads) < 0 for pads in ends.values()):
        return value
    value, order = settled(trace, node, value)
    sizes, pads = {}, [[0] * len(order) for _ in range(2)]
    for at, axis in enumerate(order):
        before, after = (max(0, size) for size in ends.get(axis, (0, 0)))
        sizes[axis], pads[0][at], pads[1][at] = value.layout.size(axis) + before + after, before, after
    floats = [float(fill[0]) if fill.size else 0.0]
    number = trace.append(node, "pad", [value.number], list(sizes.values()), ints=[*pads[0], *pads[1]], floats=floats)
    return Value(number, value.layout.packed(order, sizes), node.output[0])


def _mirrored(
    trace: Trace, node: onnx.NodeProto, value: Value, mode: str, axis: int, *, before: int, after: int
) -> Value:
    whole = value.layout.shape[axis]
    most = {"reflect": whole - 1, "edge": 2**24, "wrap": whole}[mode]
    if not (0 <= before <= most and 0 <= after <= most):
        raise refuse(node, f"mode={mode} by {before} and {after} of {whole}: use pads of 0 to {most}")
    if before == after == 0:
        return value
    ints = [before, after, MIRRORS.index(mode)]
    return along(trace, node, "extend", value, axis=axis, size=before + whole + after, ints=ints)


PAD_OPS: dict[str, Handler] = {"Pad": pad}
