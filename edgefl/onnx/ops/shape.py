"""Ops that move or cut activations. Transposing, flattening and the like change only the layout that ONNX sees
(layout.py). A node is added to the plan only when an op needs the memory in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import onnx

from ..arrange import in_order, settled
from ..folds import split_sizes
from ..items import Const, Handler, Item, Readout, Value, axes_of, value_of
from ..layout import Layout, readable
from ..nodes import attributes, refuse
from ..trace import Trace
from .along import along


def seen(node: onnx.NodeProto, value: Value, layout: Layout) -> Value:
    return replace(value, layout=layout, tensor=node.output[0])


def axis_of(node: onnx.NodeProto, value: Value, axis: int) -> int:
    """The axis, counted from 0; refuses the axis of the samples."""
    rank = len(value.layout.axes)
    if not -rank <= axis < rank:
        raise refuse(node, f"axis {axis} of {value.layout} does not exist: check the export")
    if axis % rank == value.layout.samples:
        raise refuse(node, "it mixes samples: keep the first axis for them")
    return axis % rank


def reshape(trace: Trace, node: onnx.NodeProto, x: Item, target: Item | None = None) -> Item:
    if isinstance(x, Readout):
        return x
    value = value_of(node, x, tokens=True)
    if not isinstance(target, Const):
        raise refuse(node, "its shape is computed from the input: export with a fixed shape")
    shape, old = [int(size) for size in target.array.ravel()], value.layout.shape
    if not attributes(node).get("allowzero", 0):
        shape = [old[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if shape.count(-1) == 1:
        known = -int(np.prod([1, *shape], dtype=object))
        shape[shape.index(-1)] = int(np.prod([1, *old], dtype=object)) // max(known, 1)
    return reshaped_to(trace, node, value, shape)


def reshaped_to(trace: Trace, node: onnx.NodeProto, value: Value, shape: Sequence[int]) -> Value:
    """The value as ONNX's `shape`, which includes the samples. If no layout expresses it, the memory is first put in
    ONNX's order."""
    if min(shape, default=1) < 1:
        raise refuse(node, f"shape {readable(shape)} is not known: export with fixed sizes")
    layout = value.layout.reshaped(shape)
    if layout is None:
        value = in_order(trace, node, value)
        layout = value.layout.reshaped(shape)
    if layout is None:
        sizes = f"{value.layout} to {readable(shape)}"
        raise refuse(node, f"reshaping {sizes} mixes samples, or does not fit: keep the first axis for samples (-1)")
    return seen(node, value, layout)


def flatten(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, axis = value_of(node, x, tokens=True), attributes(node).get("axis", 1)
    shape = value.layout.shape
    at = axis % len(shape) if axis < len(shape) else axis
    halves = [int(np.prod([1, *part], dtype=object)) for part in (shape[:at], shape[at:])]
    return reshaped_to(trace, node, value, halves)


def transpose(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    if isinstance(x, Readout):
        return x
    value = value_of(node, x, tokens=True)
    rank = len(value.layout.axes)
    order = list(attributes(node).get("perm") or range(rank)[::-1])
    if sorted(order) != list(range(rank)):
        raise refuse(node, f"perm={order} does not fit {rank} axes: check the export")
    return seen(node, value, value.layout.transposed(order))


def squeeze(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Item:
    if isinstance(x, Readout):
        return x
    value = value_of(node, x, tokens=True)
    given, layout = axes_of(node, const_of(node, axes)), value.layout
    if given is None:
        if layout.samples >= 0 and layout.shape[layout.samples] == 1:
            raise refuse(node, "without axes it takes off that of the only sample too: name its axes")
        given = tuple(axis for axis in layout.inner if not layout.axes[axis])
    chosen = [axis_of(node, value, axis) for axis in given]
    if any(layout.axes[axis] for axis in chosen):
        raise refuse(node, f"axes {list(given)} of {layout} are not all of size 1: check the export")
    return seen(node, value, layout.squeezed(chosen))


def unsqueeze(trace: Trace, node: onnx.NodeProto, x: Item, axes: Item | None = None) -> Item:
    if isinstance(x, Readout):
        return x
    value = value_of(node, x, tokens=True)
    given = axes_of(node, const_of(node, axes)) or ()
    rank = len(value.layout.axes) + len(given)
    chosen = {axis % rank for axis in given if -rank <= axis < rank}
    if len(chosen) != len(given):
        raise refuse(node, f"axes {list(given)} do not fit {rank} axes: check the export")
    return seen(node, value, value.layout.unsqueezed(sorted(chosen)))


def const_of(node: onnx.NodeProto, item: Item | None) -> Const | None:
    if item is not None and not isinstance(item, Const):
        raise refuse(node, "its axes or sizes are computed from the input: export with fixed ones")
    return item


def shape(trace: Trace, node: onnx.NodeProto, x: Item) -> Const:
    """The shape as a constant, with OPEN for the number of samples if the file leaves it open."""
    whole, bounds = value_of(node, x, tokens=True).layout.shape, attributes(node)
    return Const(np.array(whole[bounds.get("start", 0) : bounds.get("end")], np.int64))


def part_of(trace: Trace, node: onnx.NodeProto, value: Value, axis: int, *, start: int, size: int) -> Value:
    """`size` elements along `axis` from `start` on."""
    if size == value.layout.size(axis):
        return value
    value, order = settled(trace, node, value)
    sizes = {at: value.layout.size(at) for at in order} | {axis: size}
    ints = [order.index(axis), start, size]
    number = trace.append(node, "slice", [value.number], [sizes[at] for at in order], ints=ints)
    return replace(value, number=number, layout=value.layout.packed(order, sizes))


def slice_(trace: Trace, node: onnx.NodeProto, x: Item, *given: Item | None) -> Value:
    """Bounds are inputs (starts, ends, axes, steps) since opset 10, attributes before."""
    value, bounds = value_of(node, x, tokens=True), attributes(node)
    for name, item in zip(("starts", "ends", "axes", "steps"), given, strict=False):
        if (const := const_of(node, item)) is not None:
            bounds[name] = const.array.ravel().tolist()
    starts, ends = bounds["starts"], bounds["ends"]
    rank = len(value.layout.axes)
    for at, axis in enumerate(bounds.get("axes", range(len(starts)))):
        whole = value.layout.shape[axis]
        start, end, step = slice(starts[at], ends[at], bounds["steps"][at] if "steps" in bounds else 1).indices(whole)
        if axis % rank == value.layout.samples and (start, step) == (0, 1) and ends[at] >= whole:
            continue
        size, axis = len(range(start, end, step)), axis_of(node, value, axis)
        if not size:
            raise refuse(node, f"takes {start}:{end}:{step} of axis {axis}, which is nothing: check the export")
        if step == 1:
            value = part_of(trace, node, value, axis, start=start, size=size)
        else:
            value = along(trace, node, "stride", value, axis=axis, size=size, ints=[start, step, size])
    return seen(node, value, value.layout)


def split(trace: Trace, node: onnx.NodeProto, x: Item, sizes: Item | None = None) -> tuple[Value, ...]:
    value = value_of(node, x)
    axis = axis_of(node, value, attributes(node).get("axis", 0))
    parts = pieces(trace, node, value, axis, split_sizes(node, value.layout.size(axis), const_of(node, sizes)))
    return tuple(replace(part, tensor=name) for name, part in zip(node.output, parts, strict=False))


def pieces(trace: Trace, node: onnx.NodeProto, value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """Neighbouring parts along an axis, one for each size."""
    axis, starts = axis_of(node, value, axis), accumulate(sizes, initial=0)
    return [part_of(trace, node, value, axis, start=at, size=size) for at, size in zip(starts, sizes, strict=False)]


def gather(trace: Trace, node: onnx.NodeProto, x: Item, indices: Item) -> Item:
    """Rows of an embedding for tokens, or one place (or neighbours) of an activation for a constant."""
    axis = attributes(node).get("axis", 0)
    if isinstance(x, Const):
        return _embedding(trace, node, x, value_of(node, indices, tokens=True), axis)
    value, chosen = value_of(node, x, tokens=True), const_of(node, indices)
    assert chosen is not None
    axis = axis_of(node, value, axis)
    at = chosen.array.astype(np.int64)
    size = value.layout.size(axis)
    places = np.where(at < 0, at + size, at).ravel()
    if at.ndim > 1 or not at.size or (np.diff(places) != 1).any() or places[0] < 0 or places[-1] >= size:
        raise refuse(node, f"takes places {at.tolist()} of {size}: only one, or neighbours in order, are trained")
    if value.tokens and len(places) != size:
        raise refuse(node, "it takes some tokens apart: feed them as they are to be used")
    part = part_of(trace, node, value, axis, start=int(places[0]), size=len(places))
    return seen(node, part, part.layout.squeezed([axis]) if at.ndim == 0 else part.layout)


def _embedding(trace: Trace, node: onnx.NodeProto, table: Const, tokens: Value, axis: int) -> Value:
    if not tokens.tokens or axis not in (0, -table.array.ndim) or table.array.ndim != 2:
        raise refuse(node, f"looks up axis {axis} of {table.array.shape}: only rows of a table, by tokens, are trained")
    number = tokens.number
    while number and trace.drafts[number - 1].op in ("flatten", "reshape", "slice", "transpose"):
        number = trace.drafts[number - 1].inputs[0]
    if number:
        raise refuse(node, "it looks up tokens that are computed: feed these as an input")
    width = table.array.shape[1]
    weight = trace.weight(node, "weight", table, 0)
    tied = trace.held(node, "weight", weight.map(np.transpose)) if trace.is_read(weight.where) else None
    if tied is not None and trace.ops_of(tied) == {"dense"} and trace.held(node, "weight", weight) is None:
        trace.turn(tied)
    param = trace.param(node, "weight", weight)
    number = trace.append(node, "embedding", [tokens.number], (*trace.shapes[tokens.number], width), params=[param])
    layout = tokens.layout.unsqueezed([len(tokens.layout.axes)]).resized(len(tokens.layout.axes), 1, width)
    return Value(number, layout, node.output[0])


SHAPE_OPS: dict[str, Handler] = {
    "Flatten": flatten,
    "Gather": gather,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
