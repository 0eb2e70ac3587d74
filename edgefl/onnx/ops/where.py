"""Where and Trilu on activations. A condition that is known now is the `mask` op of the plan, one that compares two
activations, or one with a constant, the `select` op. What compares tokens, such as a mask of padding, is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import arranged, settled
from ..items import Condition, Const, Handler, Item, Value, value_of
from ..layout import readable
from ..masks import masked
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import calculate


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
    """Both sides as the condition has its numbers: one element of each for each number that is compared."""
    chooser, order = settled(trace, node, condition.value)
    sizes = [chooser.layout.size(axis) for axis in order]
    numbers = []
    for item in (no, yes) if condition.negated else (yes, no):
        if isinstance(item, Const):
            if item.array.size != 1 or not np.isfinite(item.array).all():
                raise refuse(node, "it fills in other than one finite number: use one, or a constant condition")
            side = masked(trace, node, chooser, np.zeros((), bool), float(item.array.ravel()[0]))
        else:
            side = value_of(node, item)
        if side.layout.shape != chooser.layout.shape or side.layout.mixture != chooser.layout.mixture:
            raise refuse(node, f"{side.layout} does not fit a condition {chooser.layout}: give all the same shape")
        numbers.append(arranged(trace, node, side, order, sizes))
    number = trace.append(node, "select", [chooser.number, *numbers], sizes)
    return Value(number, chooser.layout, node.output[0])


def compare(*, swapped: bool, negated: bool) -> Callable[[Trace, onnx.NodeProto, Item, Item], Condition]:
    """Whether a > b; swapped: b > a; negated: not."""

    def handler(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Condition:
        left, right, slots = (b, a, (1, 0)) if swapped else (a, b, (0, 1))
        return Condition(calculate(trace, node, "sub", left, right, slots=slots), negated)

    return handler


def opposite(trace: Trace, node: onnx.NodeProto, x: Item) -> Condition:
    if not isinstance(x, Condition):
        raise refuse(node, "it reads no comparison: compare numbers first")
    return replace(x, negated=not x.negated)


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


def is_nan(trace: Trace, node: onnx.NodeProto, x: Item) -> Const:
    """PyTorch looks in a softmax for rows of which its mask leaves nothing. Such a mask is refused here."""
    maker = trace.maker(value_of(node, x))
    if maker is None or maker.op != "softmax":
        raise refuse(node, "a search for NaN is not part of training: leave it out of the export")
    return Const(np.zeros((), bool))


WHERE_OPS: dict[str, Handler] = {
    "Greater": compare(swapped=False, negated=False),
    "GreaterOrEqual": compare(swapped=True, negated=True),
    "IsNaN": is_nan,
    "Less": compare(swapped=True, negated=False),
    "LessOrEqual": compare(swapped=False, negated=True),
    "Not": opposite,
    "Trilu": trilu,
    "Where": where,
}
