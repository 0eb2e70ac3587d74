"""Comparisons, what logic makes of them, and what they choose: the ops `step` and `keep` of the plan.

A condition is a value that is above 0 where it holds. Tokens can be compared too, so that each sample has a mask of its
own padding. What only moves numbers moves a condition likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import arranged, settled
from ..items import Condition, Const, Handler, Item, Value, value_of
from ..masks import LOWEST, NOWHERE, masked
from ..nodes import refuse
from ..trace import Trace
from .arithmetic import calculate
from .expand import widened
from .reduce import pointwise, reduced

MOST = 2**24  # whole numbers that float32 tells apart
MOVES = ("Expand", "Flatten", "Reshape", "Shape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")
COUNTS = ("Abs", "Add", "Clip", "Max", "Min", "Mul", "Neg", "ReduceSum", "Sub")


def number_of(trace: Trace, node: onnx.NodeProto, condition: Condition, yes: float = 1.0, no: float = 0.0) -> Value:
    """One number where the condition holds, another elsewhere; minus infinity is one too."""
    floats = [no, yes] if condition.negated else [yes, no]
    made = pointwise(trace, node, "step", condition.value, *(max(number, LOWEST) for number in floats))
    if not np.isneginf(floats).any():
        return made
    trace.hiding.add(made.number)
    return replace(made, hidden=NOWHERE)


def kept(trace: Trace, node: onnx.NodeProto, value: Value, condition: Condition, fill: float) -> Value:
    """The value where the condition holds, and `fill` elsewhere; either is as wide as the other one needs it."""
    chooser = number_of(trace, node, condition, 1.0, 0.0) if condition.negated else condition.value
    value = widened(trace, node, value, chooser.layout.shape)
    rank = len(value.layout.axes)
    chooser = replace(chooser, layout=chooser.layout.unsqueezed(range(rank - len(chooser.layout.axes))))
    if chooser.layout.mixture != value.layout.mixture:
        raise refuse(node, f"it mixes samples: {chooser.layout} and {value.layout} hold them in different axes")
    value, order = settled(trace, node, value)
    number = arranged(trace, node, chooser, order, [chooser.layout.size(axis) for axis in order])
    shape = trace.shapes[value.number]
    made = trace.append(node, "keep", [value.number, number], shape, floats=[max(fill, LOWEST)])
    hidden = value.hidden
    if np.isneginf(fill):
        trace.hiding.add(made)
        hidden = NOWHERE
    return Value(made, value.layout, node.output[0], hidden=hidden)


def numbers(trace: Trace, node: onnx.NodeProto, item: Item) -> Item:
    """What is compared, as float32: tokens and whole numbers are held exactly."""
    if isinstance(item, Condition):
        return number_of(trace, node, item)
    if isinstance(item, Value):
        return replace(item, tokens=False)
    if isinstance(item, Const) and item.array.dtype.kind in "iub":
        if (np.abs(item.array.astype(np.float64)) > MOST).any():
            raise refuse(node, f"it compares with a number above {MOST}, which float32 does not tell from others")
        return Const(item.array.astype(np.float32))
    return item


def compare(*, swapped: bool, negated: bool) -> Callable[[Trace, onnx.NodeProto, Item, Item], Condition]:
    """Whether a > b; swapped: b > a; negated: not."""

    def handler(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Condition:
        a, b = numbers(trace, node, a), numbers(trace, node, b)
        left, right, slots = (b, a, (1, 0)) if swapped else (a, b, (0, 1))
        return Condition(calculate(trace, node, "sub", left, right, slots=slots), negated)

    return handler


def equal(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Condition:
    """|a - b| is not above 0."""
    apart = calculate(trace, node, "sub", numbers(trace, node, a), numbers(trace, node, b))
    return Condition(pointwise(trace, node, "abs", apart), negated=True)


def opposite(trace: Trace, node: onnx.NodeProto, x: Item) -> Condition:
    if not isinstance(x, Condition):
        raise refuse(node, "it reads no comparison: compare numbers first")
    return replace(x, negated=not x.negated)


def joined(*, every: bool) -> Callable[[Trace, onnx.NodeProto, Item, Item], Condition]:
    """Whether both hold (`every`), or either does: the smaller or the larger of two values is above 0."""

    def handler(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Condition:
        for x, other in ((a, b), (b, a)):
            if isinstance(x, Condition) and isinstance(other, Const):
                return _with_known(trace, node, x, other.array.astype(bool), every=every)
        if not (isinstance(a, Condition) and isinstance(b, Condition)):
            raise refuse(node, "it reads no comparisons: compare numbers first")
        negated = a.negated and b.negated  # not a and not b: not (a or b)
        values = [number_of(trace, node, x) if x.negated and not negated else x.value for x in (a, b)]
        return Condition(calculate(trace, node, "min" if every != negated else "max", *values), negated)

    return handler


def _with_known(
    trace: Trace, node: onnx.NodeProto, condition: Condition, known: np.ndarray, *, every: bool
) -> Condition:
    """With a condition that is known now, which settles the rest: what holds has 1, what does not has 0."""
    value = widened(trace, node, condition.value, known.shape)
    fill = 0.0 if every != condition.negated else 1.0
    return replace(condition, value=masked(trace, node, value, known if every else ~known, fill))


def is_nan(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    """PyTorch looks in a softmax for rows of which its mask leaves nothing. A constant mask of that kind is refused;
    where the mask comes from the input, these are the rows without a score above LOWEST."""
    value = value_of(node, x)
    maker = trace.maker(value)
    if maker is None or maker.op != "softmax":
        raise refuse(node, "a search for NaN is not part of training: leave it out of the export")
    if maker.inputs[0] not in trace.hiding:
        return Const(np.zeros((), bool))
    last, size = len(value.layout.axes) - 1, trace.shapes[value.number][-1]
    if value.layout.factors([last]) != ((size, 1),):
        raise refuse(node, "it looks for NaN along another axis than the last: leave it out of the export")
    top = reduced(trace, node, "reduce_max", replace(value, number=maker.inputs[0]), [last], keep=True)
    return Condition(calculate(trace, node, "add", top, Const(np.array(-LOWEST / 10, np.float32))), negated=True)


def moving(handler: Handler) -> Handler:
    """The handler of an op that moves numbers, or tells their shape, for conditions too, and for masks that are minus
    infinity where the input says so."""

    def moved(trace: Trace, node: onnx.NodeProto, x: Item, *given: Item | None) -> Item | tuple[Item, ...]:
        value = x.value if isinstance(x, Condition) else x
        if not isinstance(value, Value):
            return handler(trace, node, x, *given)
        infinite = value.hidden is NOWHERE
        made = handler(trace, node, replace(value, hidden=None) if infinite else value, *given)
        if not isinstance(made, Value):
            return made
        made = replace(made, hidden=NOWHERE) if infinite else made
        return replace(x, value=made) if isinstance(x, Condition) else made

    return moved


def counting(handler: Handler) -> Handler:
    """The handler of arithmetic for whole numbers too, which stay whole: how much of a sample is no padding."""

    def counted(trace: Trace, node: onnx.NodeProto, *inputs: Item | None) -> Item | tuple[Item, ...]:
        if not any(isinstance(item, Value) and item.tokens for item in inputs):
            return handler(trace, node, *inputs)
        count = 1 if node.op_type in ("CumSum", "ReduceSum") else len(inputs)  # their second input names axes
        floats = [item if item is None else numbers(trace, node, item) for item in inputs[:count]]
        made = handler(trace, node, *floats, *inputs[count:])
        assert isinstance(made, Value)
        return replace(made, tokens=True)

    return counted


CONDITION_OPS: dict[str, Handler] = {
    "And": joined(every=True),
    "Equal": equal,
    "Greater": compare(swapped=False, negated=False),
    "GreaterOrEqual": compare(swapped=True, negated=True),
    "IsNaN": is_nan,
    "Less": compare(swapped=True, negated=False),
    "LessOrEqual": compare(swapped=False, negated=True),
    "Not": opposite,
    "Or": joined(every=False),
}
