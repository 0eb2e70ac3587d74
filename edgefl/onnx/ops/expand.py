"""Expand and Tile of activations, along every axis but that of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import reshaped, settled
from ..items import Handler, Item, Value, value_of
from ..nodes import refuse
from ..trace import Trace
from .shape import const_of, seen


def expand(trace: Trace, node: onnx.NodeProto, x: Item, target: Item) -> Value:
    """Axes of one repeat until the value has the target's shape; new axes come first."""
    value, wanted = value_of(node, x), const_of(node, target)
    assert wanted is not None
    sizes = [int(size) for size in wanted.array.ravel()]
    value = seen(node, value, value.layout.unsqueezed(range(max(0, len(sizes) - len(value.layout.axes)))))
    shape = value.layout.shape
    whole = np.broadcast_shapes(shape, tuple(sizes))
    return _repeated(trace, node, value, [new // old for new, old in zip(whole, shape, strict=True)])


def tile(trace: Trace, node: onnx.NodeProto, x: Item, repeats: Item) -> Value:
    value, wanted = value_of(node, x), const_of(node, repeats)
    assert wanted is not None
    times = [int(count) for count in wanted.array.ravel()]
    if len(times) != len(value.layout.axes) or min(times, default=1) < 1:
        raise refuse(node, f"repeats {times} do not fit {value.layout}: give each axis a number of 1 or more")
    return _repeated(trace, node, value, times)


def _repeated(trace: Trace, node: onnx.NodeProto, value: Value, times: Sequence[int]) -> Value:
    """The value `times[axis]` times along each axis."""
    if value.layout.samples >= 0 and times[value.layout.samples] != 1:
        raise refuse(node, "it repeats samples: keep their number as it is")
    chosen = {axis: count for axis, count in enumerate(times) if count > 1}
    if not chosen:
        return seen(node, value, value.layout)
    value, order = settled(trace, node, value)
    sizes = {axis: value.layout.size(axis) for axis in order}
    before, after = _steps(order, sizes, chosen)
    number = reshaped(trace, node, value.number, before)
    number = trace.append(node, "expand", [number], after, ints=after)
    whole = {axis: size * chosen.get(axis, 1) for axis, size in sizes.items()}
    number = reshaped(trace, node, number, [whole[axis] for axis in order])
    layout = value.layout.packed(order, whole)
    return seen(node, Value(number, layout, value.tensor), layout)


def _steps(order: Sequence[int], sizes: Mapping[int, int], times: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """The shape before and after: a repeated axis of more than one element has an axis of one in front, which repeats
    instead."""
    before: list[int] = []
    after: list[int] = []
    for axis in order:
        count = times.get(axis, 1)
        apart = count > 1 and sizes[axis] > 1
        before += [1, sizes[axis]] if apart else [sizes[axis]]
        after += [count, sizes[axis]] if apart else [count * sizes[axis]]
    return before, after


def widened(trace: Trace, node: onnx.NodeProto, value: Value, shape: Sequence[int]) -> Value:
    """The value with its axes of one repeated to those of `shape`, as broadcasting does. The axis of the samples stays,
    and so do axes that do not fit: the reader of the value refuses them."""
    layout = value.layout.unsqueezed(range(max(0, len(shape) - len(value.layout.axes))))
    target = (1,) * (len(layout.axes) - len(shape)) + tuple(shape)
    pairs = enumerate(zip(layout.shape, target, strict=True))
    times = [new if old == 1 and at != layout.samples else 1 for at, (old, new) in pairs]
    made = _repeated(trace, node, replace(value, layout=layout), times)
    return replace(made, tensor=value.tensor, hidden=value.hidden)


EXPAND_OPS: dict[str, Handler] = {"Expand": expand, "Tile": tile}
