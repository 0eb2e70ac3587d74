"""Brings a value's memory into the order that an op of the plan needs.

Often the same memory under another shape is enough. Otherwise a transpose is appended, one for all ops that need the
same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx

from .items import Value
from .layout import Axis, positions
from .nodes import refuse
from .trace import Trace


def arranged(trace: Trace, node: onnx.NodeProto, value: Value, order: Sequence[int], shape: Sequence[int]) -> int:
    """The plan's value whose memory has the axes in `order`, under `shape`. `order` numbers axes as ONNX does and
    leaves out an axis that holds samples alone."""
    wanted = value.layout.factors(order)
    memory = sorted(wanted, key=lambda factor: -factor.stride)
    number = value.number
    if list(wanted) != memory:
        key = (number, wanted)
        if key not in trace.arranged:
            number = reshaped(trace, node, number, [factor.size for factor in memory])
            moved, perm = [factor.size for factor in wanted], [memory.index(factor) for factor in wanted]
            trace.arranged[key] = trace.append(node, "transpose", [number], moved, ints=perm)
        number = trace.arranged[key]
    return reshaped(trace, node, number, shape)


def reshaped(trace: Trace, node: onnx.NodeProto, number: int, shape: Sequence[int]) -> int:
    """The number of the value that is value `number` under another shape."""
    shape = tuple(shape)
    while trace.shapes[number] != shape and number and trace.drafts[number - 1].op in ("flatten", "reshape"):
        number = trace.drafts[number - 1].inputs[0]
    if trace.shapes[number] == shape:
        return number
    key = (number, shape)
    if key not in trace.arranged:
        op, ints = ("flatten", ()) if len(shape) == 1 else ("reshape", shape)
        trace.arranged[key] = trace.append(node, op, [number], shape, ints=ints)
    return trace.arranged[key]


def in_order(trace: Trace, node: onnx.NodeProto, value: Value) -> Value:
    """The value with its memory in the order in which ONNX has the axes."""
    layout = value.layout
    number = arranged(trace, node, value, layout.inner, [prod(layout.sample_shape)])
    return replace(value, number=number, layout=layout.packed(layout.inner, _sizes(value)))


def settled(
    trace: Trace, node: onnx.NodeProto, value: Value, order: Sequence[int] | None = None
) -> tuple[Value, tuple[int, ...]]:
    """The value with one axis in the plan for each axis of a sample, and their order: axis i of the plan is ONNX's axis
    order[i]. Without a given `order`, the one that moves the fewest elements."""
    layout = value.layout
    shared = layout.samples >= 0 and any(factor.stride for factor in layout.axes[layout.samples])
    if shared and layout.mixture[1] > 1 < layout.mixture[2]:
        raise refuse(node, "its samples stand between other numbers in one axis: give them an axis of their own")
    if order is None:
        order = _memory_order(value)
    sizes = _sizes(value)
    number = arranged(trace, node, value, order, [sizes[axis] for axis in order])
    return replace(value, number=number, layout=layout.packed(order, sizes)), tuple(order)


def innermost(trace: Trace, node: onnx.NodeProto, value: Value, axes: Sequence[int]) -> tuple[Value, Axis, int]:
    """The value with all elements along `axes` in the plan's last axis, the factors by which ONNX steps through these,
    and their number. They keep their order in memory: it is cheaper to reorder a weight (`in_memory_order`)."""
    layout = value.layout
    if layout.samples in axes:
        raise refuse(node, "it mixes samples: keep the first axis for them")
    block = layout.factors(axes)
    size = prod(factor.size for factor in block)
    if any(factor.size * factor.stride > size for factor in block):
        rest = [axis for axis in _memory_order(value) if axis not in axes]
        order, sizes = [*rest, *axes], _sizes(value)
        number = arranged(trace, node, value, order, [prod(sizes[axis] for axis in rest), size])
        layout = layout.packed(order, sizes)
        value = replace(value, number=number, layout=layout)
        block = layout.factors(axes)
    shape = trace.shapes[value.number]
    if not shape or shape[-1] != size:
        outer = prod(shape) // size
        value = replace(value, number=reshaped(trace, node, value.number, (outer, size) if outer > 1 else (size,)))
    return value, block, size


def in_memory_order(block: Axis) -> np.ndarray:
    """(n,) for each position in memory the element that lies there, numbered as ONNX counts."""
    return np.argsort(positions(block))


def _sizes(value: Value) -> dict[int, int]:
    return {axis: value.layout.size(axis) for axis in value.layout.inner}


def _memory_order(value: Value) -> list[int]:
    """The axes of a sample, the outermost in memory first; ONNX's order if an axis is spread over several places."""
    layout, keys, stride = value.layout, {}, 0.0
    for axis in reversed(layout.inner):
        factors = layout.factors([axis])
        if len(factors) > 1:
            return list(layout.inner)
        # An axis of one element can stand anywhere: just outside of its neighbour.
        stride = float(factors[0].stride) if factors else stride + 0.5 / len(layout.axes)
        keys[axis] = stride
    return sorted(layout.inner, key=lambda axis: -keys[axis])
