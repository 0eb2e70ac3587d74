"""Concat of activations, and of activations with constants: the class token of a vision transformer, say, which is
trained, or zeros, which are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import arranged, settled
from ..items import Const, Handler, Item, Readout, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import readout_of_two
from .shape import axis_of

MAX_INPUTS = 8  # of a node of the plan


def concat(trace: Trace, node: onnx.NodeProto, *parts: Item) -> Value | Readout:
    if (readout := readout_of_two(trace, parts)) is not None:
        return readout
    values = [value_of(node, part) for part in parts if not isinstance(part, Const)]
    axis = axis_of(node, values[0], attributes(node)["axis"])
    shapes = [_shape(trace, node, part, values[0].layout.samples) for part in parts]
    others = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(others) > 1 or len({value.layout.mixture for value in values}) > 1:
        joined = ", ".join(str(part.array.shape if isinstance(part, Const) else value_of(node, part).layout)
                           for part in parts)  # fmt: skip
        raise refuse(node, f"joins {joined}: give them the same other axes")
    first, order = settled(trace, node, values[0])
    numbers, widths = [], []
    for slot, part in enumerate(parts):
        sizes = {at: first.layout.size(at) for at in order} | {axis: shapes[slot][axis]}
        if isinstance(part, Const):
            numbers.append(_repeated(trace, node, part, slot, first=first, order=order))
        else:
            numbers.append(arranged(trace, node, value_of(node, part), order, list(sizes.values())))
        widths.append(sizes[axis])
    while len(numbers) > 1:
        some, sizes[axis] = numbers[:MAX_INPUTS], sum(widths[:MAX_INPUTS])
        made = trace.append(node, "concat", some, list(sizes.values()), ints=[order.index(axis)])
        numbers[:MAX_INPUTS], widths[:MAX_INPUTS] = [made], [sizes[axis]]
    return Value(numbers[0], first.layout.packed(order, sizes), node.output[0])


def _shape(trace: Trace, node: onnx.NodeProto, part: Item, samples: int) -> tuple[int, ...]:
    """The shape in ONNX. A constant is the same for each sample, and of one sample or of as many as the file fixes."""
    if not isinstance(part, Const):
        return value_of(node, part).layout.shape
    array = part.array
    if array.dtype != np.float32:
        raise refuse(node, f"its constant {part.name!r} is {array.dtype}: export the model in float32")
    if samples < 0:
        return array.shape
    if array.ndim <= samples or array.shape[samples] not in (1, trace.samples):
        raise refuse(node, f"joins a constant {array.shape} to each sample: give it an axis of one for the samples")
    if (array != array.take([0], samples)).any():
        raise refuse(node, "its constant differs between samples: give each the same numbers")
    return (*array.shape[:samples], trace.samples, *array.shape[samples + 1 :])


def _repeated(
    trace: Trace, node: onnx.NodeProto, const: Const, slot: int, *, first: Value, order: Sequence[int]
) -> int:
    """The plan's value that is the constant in each sample, with the axes of the first activation in `order`."""
    samples = first.layout.samples
    if first.layout.mixture[1:] != (1, 1):
        raise refuse(node, f"joins a constant to {first.layout}: give the samples an axis of their own")
    places = [axis for axis in range(len(first.layout.axes)) if axis != samples]

    def held(array: np.ndarray) -> np.ndarray:
        one = array if samples < 0 else array.take(0, samples)
        moved: np.ndarray = one.transpose([places.index(axis) for axis in order])
        return moved

    if const.where is None:
        param = trace.constant(node, "part", held(const.array))
    else:
        weight = trace.weight(node, "part", const, slot).map(held)
        if weight.trainable:
            why = trace.why_repeated(node, "part", const, 1 if samples < 0 else const.array.shape[samples])
            weight = replace(weight, trainable=not why, why=why)
        param = trace.param(node, "part", weight)
    return trace.append(node, "repeat", [0], trace.params[param].shape, params=[param])


CONCAT_OPS: dict[str, Handler] = {"Concat": concat}
