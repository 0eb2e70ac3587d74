"""Where and Trilu on activations. A condition that is known now is the `mask` op of the plan. One that is computed from
activations or tokens chooses by `select`, or by `keep` where one side is a number (condition.py), and by a sum where
one is a weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from ..arrange import arranged, settled
from ..items import Condition, Const, Handler, Item, Value, value_of
from ..layout import readable
from ..masks import is_additive_mask, masked
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import calculate, with_constant
from .condition import kept, number_of
from .expand import widened


def where(trace: Trace, node: onnx.NodeProto, condition: Item, yes: Item, no: Item) -> Item:
    """Elements of `yes` where the condition holds, elements of `no` elsewhere."""
    if isinstance(condition, Condition):
        return _selected(trace, node, condition, yes, no)
    if not isinstance(condition, Const):
        raise refuse(node, "its condition is computed from the input: give all samples the same mask, as a constant")
    keep = condition.array.astype(bool)
    if keep.size == 1:
        chosen, other = (yes, no) if keep.all() else (no, yes)
        return _as_wide(node, chosen, _shape(node, other), keep.shape)
    if isinstance(yes, Const) and isinstance(no, Const):
        raise refuse(node, "it reads constants alone: export the model with constants folded")
    if isinstance(no, Const):
        return _with_constant(trace, node, yes, keep, no)
    if isinstance(yes, Const):
        return _with_constant(trace, node, no, ~keep, yes)
    first = masked(trace, node, value_of(node, yes), keep, 0.0)
    return calculate(trace, node, "add", first, masked(trace, node, value_of(node, no), ~keep, 0.0))


def _as_wide(node: onnx.NodeProto, item: Item, *others: tuple[int, ...]) -> Item:
    """The item; refuses other shapes that would widen it."""
    shape = _shape(node, item)
    for other in others:
        own = (1,) * (len(other) - len(shape)) + shape
        ends = zip(own[::-1], other[::-1], strict=False)
        if len(own) > len(shape) or any(mine == 1 < theirs for mine, theirs in ends):
            raise refuse(node, f"it widens {readable(shape)} to fit {readable(other)}: expand it before")
    return item


def _shape(node: onnx.NodeProto, item: Item) -> tuple[int, ...]:
    return item.array.shape if isinstance(item, Const) else value_of(node, item, hidden=True).layout.shape


def _with_constant(trace: Trace, node: onnx.NodeProto, item: Item, keep: np.ndarray, const: Const) -> Value:
    """The value where `keep` is True, the constant elsewhere."""
    value, given = value_of(node, _as_wide(node, item, const.array.shape), hidden=True), const.array
    fills = np.broadcast_to(given, np.broadcast_shapes(given.shape, keep.shape))
    used = np.unique(fills[~np.broadcast_to(keep, fills.shape)])
    if const.array.dtype != np.float32 or np.isnan(used).any() or np.isposinf(used).any():
        raise refuse(node, "its constant is not made of float32 numbers: export the model in float32")
    if used.size <= 1:
        return masked(trace, node, value, keep, float(used[0]) if used.size else 0.0)
    if not np.isfinite(used).all() or trace.is_initializer(const):
        raise refuse(node, "it fills in a tensor of several numbers, which is not trained: fill in one number")
    kept = masked(trace, node, value, keep, 0.0)
    return calculate(trace, node, "add", kept, Const(np.where(keep, np.float32(0), fills)))


def _selected(trace: Trace, node: onnx.NodeProto, condition: Condition, yes: Item, no: Item) -> Value:
    """Elements of both sides as the condition has its numbers."""
    if any(_is_weight(trace, item) for item in (yes, no)):
        return _of_weights(trace, node, condition, yes, no)
    first, other, chooser = _one_number(node, yes), _one_number(node, no), condition.value
    shape = np.broadcast_shapes(chooser.layout.shape, *(_shape(node, item) for item in (yes, no)))
    if first is not None and other is not None:
        wide = replace(condition, value=widened(trace, node, chooser, shape))
        return number_of(trace, node, wide, first, other)
    if other is not None or first is not None:
        item, fill = (no, first) if first is not None else (yes, other)
        assert fill is not None
        value = widened(trace, node, value_of(node, item, hidden=True), shape)
        where = replace(condition, negated=condition.negated != (first is not None))
        return kept(trace, node, value, where, fill)
    sides = [value_of(node, item) for item in ((no, yes) if condition.negated else (yes, no))]
    chooser, *sides = (widened(trace, node, value, shape) for value in (chooser, *sides))
    if any(side.layout.mixture != chooser.layout.mixture for side in sides):
        raise refuse(node, "it mixes samples: its sides and its condition hold them in different axes")
    chooser, order = settled(trace, node, chooser)
    sizes = [chooser.layout.size(axis) for axis in order]
    numbers = [arranged(trace, node, side, order, sizes) for side in sides]
    number = trace.append(node, "select", [chooser.number, *numbers], sizes)
    return Value(number, chooser.layout, node.output[0])


def _is_weight(trace: Trace, item: Item) -> bool:
    """Whether it is a tensor of the file to train, such as what stands for a token that is left out. Fresh ones are 0,
    and are no number to fill in all the same."""
    if not isinstance(item, Const) or item.array.dtype != np.float32 or not np.isfinite(item.array).all():
        return False
    return item.array.size > 1 and trace.is_initializer(item) and not is_additive_mask(item.array)


def _of_weights(trace: Trace, node: onnx.NodeProto, condition: Condition, yes: Item, no: Item) -> Value:
    """The sum of both sides, each 0 where it is not chosen."""
    shape = np.broadcast_shapes(condition.value.layout.shape, *(_shape(node, item) for item in (yes, no)))
    parts = []
    for slot, item in ((1, yes), (2, no)):
        where = replace(condition, negated=condition.negated != (slot == 2))
        if not isinstance(item, Const):
            value = widened(trace, node, value_of(node, item, hidden=True), shape)
            parts.append(kept(trace, node, value, where, 0.0))
            continue
        where = replace(where, value=widened(trace, node, where.value, shape))
        if _is_weight(trace, item):
            chosen = number_of(trace, node, where)
            part = with_constant(trace, node, "mul", chosen, item, slot=slot, single=True, leading=False)
        else:
            number = _one_number(node, item)
            assert number is not None
            part = number_of(trace, node, where, number, 0.0)
        parts.append(part)
    return calculate(trace, node, "add", *parts)


def _one_number(node: onnx.NodeProto, item: Item) -> float | None:
    """The number that a constant is made of; None for a value."""
    if not isinstance(item, Const):
        return None
    numbers = np.unique(item.array)
    if item.array.dtype != np.float32 or len(numbers) != 1 or np.isnan(numbers[0]) or np.isposinf(numbers[0]):
        raise refuse(node, "it fills in other than one float32 number: use one, or a constant condition")
    return float(numbers[0])


def trilu(trace: Trace, node: onnx.NodeProto, x: Item, k: Item | None = None) -> Value:
    """A triangle of the last two axes; zeros elsewhere."""
    value, diagonal = value_of(node, x), 0
    if k is not None:
        if not isinstance(k, Const):
            raise refuse(node, "its diagonal is computed from the input: export with a fixed one")
        diagonal = int(k.array.ravel()[0])
    rank = len(value.layout.axes)
    if rank < 3 or value.layout.samples > rank - 3:
        raise refuse(node, "it mixes samples: keep the first axis for them")
    cut = np.triu if attributes(node).get("upper", 1) else np.tril
    return masked(trace, node, value, cut(np.ones(value.layout.shape[-2:], bool), diagonal), 0.0)


WHERE_OPS: dict[str, Handler] = {
    "Trilu": trilu,
    "Where": where,
}
