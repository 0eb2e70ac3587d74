"""Elementwise arithmetic: two activations, or one and a constant of the file.

An initializer of more than one number is trained. Not trained, unless the caller asks for it, are single numbers,
Constant nodes, and constants that are applied to the data before the first weight, which usually standardize it. What
the graph computes from other constants can't be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import arranged, settled
from ..items import Const, Handler, Item, Readout, Value, value_of
from ..layout import Factor, Layout
from ..masks import FARTHEST, either, is_additive_mask, masked
from ..nodes import refuse
from ..trace import Trace
from ..untrained import COMPUTED, GRAPH, LEADING, MASK, NUMBER
from .expand import widened

BIASED = ("dense", "conv", "conv_transpose", "depthwise")


def arithmetic(op: str) -> Callable[[Trace, onnx.NodeProto, Item, Item], Value]:
    def handler(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Value:
        return calculate(trace, node, op, a, b)

    return handler


def calculate(
    trace: Trace,
    node: onnx.NodeProto,
    op: str,
    a: Item,
    b: Item,
    *,
    slots: tuple[int, int] = (0, 1),
    single: bool = False,
) -> Value:
    """`slots` are the inputs of the node that `a` and `b` are. `single`: a constant of one number is trained too."""
    if isinstance(a, Const) or isinstance(b, Const):
        slot = 0 if isinstance(a, Const) else 1
        const = (a, b)[slot]
        assert isinstance(const, Const)
        value = value_of(node, (a, b)[1 - slot], hidden=op == "add" or (op in ("mul", "div") and _scales(const, slot)))
        value = widened(trace, node, value, const.array.shape)
        if op == "add" and (const.array <= FARTHEST).any():
            return _hidden(trace, node, value, const, slot)
        return with_constant(trace, node, op, value, const, slot=slots[slot], first=slot == 0, single=single)
    left, right = (value_of(node, item, hidden=op == "add") for item in (a, b))
    made = _of_two(trace, node, op, left, right)
    if left.hidden is None and right.hidden is None:
        return made
    return replace(made, hidden=either(left.hidden, right.hidden))


def _hidden(trace: Trace, node: onnx.NodeProto, value: Value, const: Const, slot: int) -> Value:
    """Adds a constant that is so low in places that nothing is left of the value there."""
    lows = np.unique(const.array[const.array <= FARTHEST])
    if len(lows) > 2:  # of exporters' masks one has minus infinity and the lowest number
        raise refuse(node, f"its constant has {len(lows)} numbers below {FARTHEST:g}: mask with minus infinity")
    for low in lows:
        value = masked(trace, node, value, const.array != low, float(low))
    rest = np.where(const.array <= FARTHEST, np.float32(0), const.array)
    return with_constant(trace, node, "add", value, Const(rest), slot=slot) if rest.any() else value


def _scales(const: Const, slot: int) -> bool:
    """Whether multiplying by it, or dividing by it in slot 1, leaves minus infinity as it is."""
    return bool(const.array.dtype == np.float32 and np.isfinite(const.array).all() and (const.array > 0).all() and slot)


def add(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Value:
    """The bias of the layer that makes one of its inputs, if that layer has no bias yet; otherwise a sum."""
    for slot, value, const in ((1, a, b), (0, b, a)):
        if isinstance(value, Value) and isinstance(const, Const):
            biased = _bias(trace, node, value, const, slot=slot)
            if biased is not None:
                return biased
    return calculate(trace, node, "add", a, b)


def _bias(trace: Trace, node: onnx.NodeProto, value: Value, const: Const, *, slot: int) -> Value | None:
    draft = trace.maker(value)
    # A layer whose output other nodes read too, or that has a bias already, gets no bias here.
    own = value.tensor == node.input[1 - slot] and trace.readers[value.tensor] == 1
    if draft is None or draft.op not in BIASED or len(draft.params) != 1 or not own or const.where is None:
        return None
    outputs, layout = trace.shapes[value.number][-1], value.layout
    aligned = (1,) * (len(layout.axes) - const.array.ndim) + const.array.shape
    wide = [axis for axis, size in enumerate(aligned) if size > 1]
    if const.array.size != outputs or len(aligned) != len(layout.axes) or len(wide) > 1:
        return None
    if any(layout.axes[axis] != (Factor(outputs, 1),) for axis in wide):
        return None
    weight = trace.weight(node, "bias", const, slot).map(np.ravel)
    draft.params.append(trace.param(node, "bias", weight, layer=draft.params[0]))
    return replace(value, tensor=node.output[0])


def with_constant(
    trace: Trace,
    node: onnx.NodeProto,
    op: str,
    value: Value,
    const: Const,
    *,
    slot: int,
    first: bool = False,
    single: bool = False,
    leading: bool = True,
) -> Value:
    """Computes with a constant that is input `slot` of the node, and the `first` operand or the second. `leading`:
    before the first weight it scales the input."""
    given = const.array
    rank = max(len(value.layout.axes), given.ndim)
    value = _raised(value, rank)
    aligned = _aligned(node, const, value.layout, rank)
    order: Sequence[int] = ()
    if given.size > 1:
        value, order = settled(trace, node, value)

    def laid(array: np.ndarray) -> np.ndarray:
        moved = array.reshape(aligned).transpose([*order, *(axis for axis in range(rank) if axis not in order)])
        return _narrow(moved.reshape([aligned[axis] for axis in order]))

    known = value.number in trace.weighted or not leading
    if const.where is None:
        trace.wants(const, node, "constant")
        param = trace.constant(node, "constant", laid(given), COMPUTED if given.size > 1 else "")
    else:
        weight = trace.weight(node, "constant", const, slot).map(laid)
        if weight.trainable and (why := _why_untrained(trace, node, const, known, single)):
            weight = replace(weight, trainable=False, why=why)
        param = trace.param(node, "constant", weight)
    number = trace.append(node, op, [value.number], trace.shapes[value.number], params=[param], ints=[first])
    if not known:
        trace.weighted.discard(number)
    return replace(value, number=number, tensor=node.output[0])


def _aligned(node: onnx.NodeProto, const: Const, layout: Layout, rank: int) -> tuple[int, ...]:
    """The constant's shape with as many axes as the value has; ModelError if not every sample can have it."""
    given = const.array
    if given.dtype != np.float32:
        raise refuse(node, f"its constant {const.name!r} is {given.dtype}: export the model in float32")
    aligned = (1,) * (rank - given.ndim) + given.shape
    if layout.samples >= 0 and aligned[layout.samples] == layout.shape[layout.samples] != 1:
        count, remedy = aligned[layout.samples], "export the model with a batch of 1"
        why = f"its constant {given.shape} has numbers of its own for each of the {count} samples of a run"
        raise refuse(node, f"{why}: {remedy}, or, if they are one sample, with an axis of 1 in front of its input")
    wider = any(size not in (1, layout.size(at)) for at, size in enumerate(aligned))
    if wider or (layout.samples >= 0 and aligned[layout.samples] != 1):
        raise refuse(node, f"its constant {given.shape} does not fit {layout}: give each sample the same numbers")
    return aligned


def _why_untrained(trace: Trace, node: onnx.NodeProto, const: Const, known: bool, single: bool) -> str:
    """Why a constant of the file is not trained, "" if it is. `known`: behind a weight; `single`: one number is too."""
    if is_additive_mask(const.array):
        return MASK
    if trace.wants(const, node, "constant"):
        return ""
    if not trace.is_initializer(const):
        return GRAPH
    if const.array.size == 1 and not single:
        return NUMBER
    return "" if known else LEADING


def _narrow(array: np.ndarray) -> np.ndarray:
    """Without leading axes of one."""
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return array


def _of_two(trace: Trace, node: onnx.NodeProto, op: str, a: Value, b: Value) -> Value:
    rank = max(len(a.layout.axes), len(b.layout.axes))
    x, y = (_raised(value, rank) for value in (a, b))
    if op == "mul" and (swish := _hard_swish(trace, node, x, y)) is not None:
        return swish
    if x.layout.mixture != y.layout.mixture:
        raise refuse(node, f"it mixes samples: {a.layout} and {b.layout} hold them in different axes")
    if x.layout == y.layout and trace.shapes[x.number] == trace.shapes[y.number]:
        number = trace.append(node, op, [x.number, y.number], trace.shapes[x.number], ints=[0])
        return Value(number, x.layout, node.output[0])
    axes = sorted({*x.layout.inner, *y.layout.inner})
    sizes = dict(zip(axes, np.broadcast_shapes(_sizes(x.layout, axes), _sizes(y.layout, axes)), strict=True))
    leader, other = (x, y) if np.prod(_sizes(x.layout, axes)) >= np.prod(_sizes(y.layout, axes)) else (y, x)
    leader, order = settled(trace, node, leader)
    number = arranged(trace, node, other, order, [other.layout.size(axis) for axis in order])
    inputs = [leader.number, number] if leader.tensor == x.tensor else [number, leader.number]
    number = trace.append(node, op, inputs, [sizes[axis] for axis in order], ints=[0])
    return Value(number, leader.layout.packed(order, sizes), node.output[0])


def _raised(value: Value, rank: int) -> Value:
    """With axes of one in front, as broadcasting sees it."""
    return replace(value, layout=value.layout.unsqueezed(range(rank - len(value.layout.axes))))


def _sizes(layout: Layout, axes: list[int]) -> tuple[int, ...]:
    return tuple(layout.size(axis) for axis in axes)


def _hard_swish(trace: Trace, node: onnx.NodeProto, x: Value, y: Value) -> Value | None:
    """x hard_sigmoid(x), as exporters spell HardSwish before opset 14."""
    for value, gate in ((x, y), (y, x)):
        draft = trace.maker(gate)
        if draft is not None and draft.op == "hard_sigmoid" and draft.inputs == [value.number]:
            alpha, beta = draft.floats
            if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5 and value.layout == gate.layout:
                number = trace.append(node, "hard_swish", [value.number], trace.shapes[value.number])
                return Value(number, value.layout, node.output[0])
    return None


def total(trace: Trace, node: onnx.NodeProto, *terms: Item) -> Item:
    """Sum of any number of tensors."""
    return _chained(trace, node, "add", terms)


def extreme(op: str) -> Callable[..., Item]:
    """The largest or smallest of any number of tensors."""

    def handler(trace: Trace, node: onnx.NodeProto, *terms: Item) -> Item:
        return _chained(trace, node, op, terms)

    return handler


def _chained(trace: Trace, node: onnx.NodeProto, op: str, terms: Sequence[Item]) -> Item:
    """One term after another."""
    made = terms[0]
    for slot, term in enumerate(terms[1:], 1):
        made = calculate(trace, node, op, made, term, slots=(0, slot))
    return made


def negative(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    return calculate(trace, node, "mul", x, Const(np.array(-1, np.float32)))


def power(trace: Trace, node: onnx.NodeProto, x: Item, exponent: Item | None = None) -> Value:
    """x to the power of a constant number; -1 for Reciprocal, which has no second input."""
    if exponent is not None and not (isinstance(exponent, Const) and exponent.array.size == 1):
        raise refuse(node, "its exponent is no single number: use multiplications")
    value = value_of(node, x)
    to = -1.0 if exponent is None else float(exponent.array.ravel()[0])
    number = trace.append(node, "pow", [value.number], trace.shapes[value.number], floats=[to])
    return Value(number, value.layout, node.output[0])


def complement_of(trace: Trace, value: Value) -> int | None:
    """k if this is 1 - value number k."""
    draft = trace.maker(value)
    if draft is None or draft.op != "sub" or draft.ints != [1] or len(draft.params) != 1:
        return None
    const = trace.values[draft.params[0]]
    return draft.inputs[0] if const.shape == () and const == 1 else None


def readout_of_two(trace: Trace, parts: Sequence[Item]) -> Readout | None:
    """[1 - p, p]: one trained probability p, written as two classes."""
    match parts:
        case (Value() as first, Value() as second) if second.layout.sample_shape == (1,):
            if complement_of(trace, first) == second.number:
                return Readout(second)
    return None


ARITHMETIC_OPS: dict[str, Handler] = {
    "Add": add,
    "Max": extreme("max"),
    "Min": extreme("min"),
    "Mul": arithmetic("mul"),
    "Neg": negative,
    "Pow": power,
    "Sub": arithmetic("sub"),
    "Sum": total,
}
