"""Gemm and MatMul: a dense layer if one side is a weight, otherwise a product of two activations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from ..arrange import arranged, in_memory_order, in_order, innermost
from ..items import Const, Handler, Item, Value, Weight, value_of
from ..layout import Layout
from ..nodes import attributes, refuse
from ..trace import Trace

NARROW = 16  # outputs that fill a vector of the widest instruction set


def gemm(trace: Trace, node: onnx.NodeProto, a: Item, b: Item, c: Item | None = None) -> Value:
    """Y = alpha A B' + beta C. Weights are multiplied by alpha and beta here, and divided when they are saved."""
    given = attributes(node)
    value = value_of(node, a)
    if given.get("transA", 0) and len(value.layout.axes) == 2 and value.layout.samples < 0:
        value = replace(value, layout=value.layout.transposed([1, 0]))
    elif given.get("transA", 0) or len(value.layout.axes) != 2:
        raise refuse(node, "it mixes samples: give it rows of features (transA=0)")
    alpha, beta = given.get("alpha", 1.0), 1.0 if c is None else given.get("beta", 1.0)
    if beta == 0:
        c, beta = None, 1.0
    if not (alpha and beta and np.isfinite([alpha, beta]).all()):
        raise refuse(node, f"alpha={alpha}, beta={beta} leave nothing to train: export with 1")
    weight = trace.weight(node, "weight", b, 1)
    if weight.array.ndim == 2 and given.get("transB", 0):
        weight = weight.map(np.transpose)
    value = dense(trace, node, value, weight, alpha)
    if c is not None:
        bias = _bias(node, trace.weight(node, "bias", c, 2), trace.shapes[value.number][-1])
        trace.drafts[-1].params.append(trace.param(node, "bias", bias, layer=trace.drafts[-1].params[0], scale=beta))
    return value


def _bias(node: onnx.NodeProto, weight: Weight, outputs: int) -> Weight:
    """The bias as (O,); refuses one number shared by all outputs, which would have to stay tied."""
    if weight.array.size != outputs or any(size != 1 for size in weight.array.shape[:-1]):
        raise refuse(node, f"its bias has shape {weight.array.shape}, not ({outputs},): give each output its own")
    return weight.map(np.ravel)


def matmul(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Value:
    """As NumPy: an operand with one axis is a row on the left or a column on the right, and the result lacks it."""
    if isinstance(b, Const):
        return _by_weight(trace, node, value_of(node, a), trace.weight(node, "weight", b, 1))
    if isinstance(a, Const):  # W x = (x' W')'
        right, weight = value_of(node, b), trace.weight(node, "weight", a, 0)
        if weight.array.ndim == 1 or (weight.array.ndim == 2 and len(right.layout.axes) == 1):
            return _by_weight(trace, node, _turned(node, right), weight.map(np.transpose))
        if weight.array.ndim != 2:
            raise refuse(node, "the constant is on the left: write it as MatMul(x, W)")
        return _turned(node, dense(trace, node, _turned(node, right), weight.map(np.transpose)))
    left, right = value_of(node, a), value_of(node, b)
    row, column = len(left.layout.axes) == 1, len(right.layout.axes) == 1
    left = replace(left, layout=left.layout.unsqueezed([0])) if row else left
    right = replace(right, layout=right.layout.unsqueezed([1])) if column else right
    made = product(trace, node, left, right)
    rank = len(made.layout.axes)
    dropped = [axis for axis, drop in ((rank - 2, row), (rank - 1, column)) if drop]
    return replace(made, layout=made.layout.squeezed(dropped))


def _by_weight(trace: Trace, node: onnx.NodeProto, value: Value, weight: Weight) -> Value:
    """value W, or value w of a vector w, whose result has an axis less."""
    more = weight.array.ndim - max(2, len(value.layout.axes))  # axes of one in front, as broadcasting adds them
    value = replace(value, layout=value.layout.unsqueezed(range(more)))
    while weight.array.ndim > 2 and len(weight.array) == 1:
        weight = weight.map(lambda array: array[0])
    if weight.array.ndim != 1:
        return dense(trace, node, value, weight)
    made = dense(trace, node, value, weight.map(lambda array: array[:, None]))
    return replace(made, layout=made.layout.squeezed([len(made.layout.axes) - 1]))


def _turned(node: onnx.NodeProto, value: Value) -> Value:
    turned = exchanged(value)
    if turned is None:
        raise refuse(node, "the constant is on the left: write it as MatMul(x, W)")
    return turned


def exchanged(value: Value) -> Value | None:
    """The value with its last two axes exchanged, a vector as it is; None if the samples are in one of these axes."""
    rank, samples = len(value.layout.axes), value.layout.samples
    if rank == 1 and samples < 0:
        return value
    if rank < 2 or rank - 2 <= samples:
        return None
    order = (*range(rank - 2), rank - 1, rank - 2)
    return Value(value.number, value.layout.transposed(order), value.tensor)


def dense(
    trace: Trace,
    node: onnx.NodeProto,
    value: Value,
    weight: Weight,
    scale: float = 1.0,
    *,
    mirror: np.ndarray | None = None,
) -> Value:
    """x W along the last axis. The rows of W (I, O) are put in the order in which the plan holds the features. A narrow
    W is stored transposed, (O, I), because the core is fast along long rows only. A W that another node reads is stored
    as that node has it.
    """
    axis, layout = len(value.layout.axes) - 1, value.layout
    features = layout.shape[-1]
    if weight.array.ndim != 2 or weight.array.shape[0] != features or axis == layout.samples:
        raise refuse(node, f"weight {weight.array.shape} does not fit an input {layout}: check the export")
    outputs, narrow = weight.array.shape[1], weight.array.shape[1] < NARROW <= features
    if trace.is_plain(weight):
        value = in_order(trace, node, value)
    value, block, size = innermost(trace, node, value, [axis])
    order = in_memory_order(block)
    turned = _turned_as_tied(trace, node, weight, order, scale)
    turned = narrow if turned is None else turned
    mirror = None if mirror is None else _held(mirror, order, turned)
    held = weight.map(lambda array: _held(array, order, turned))
    param = trace.param(node, "weight", held, scale=scale, mirror=mirror)
    shape = (*trace.shapes[value.number][:-1], outputs)
    number = trace.append(node, "dense", [value.number], shape, params=[param], ints=[1] if turned else [])
    return Value(number, value.layout.resized(axis, size, outputs), node.output[0])


def _held(array: np.ndarray, order: np.ndarray, turned: bool) -> np.ndarray:
    """A weight (I, O) as the plan holds it: (I, O) or (O, I), the features in `order`."""
    rows: np.ndarray = array[order]
    return rows.T if turned else rows


def _turned_as_tied(trace: Trace, node: onnx.NodeProto, weight: Weight, order: np.ndarray, scale: float) -> bool | None:
    """Whether a param that another node reads holds this weight as (O, I); None if no param does so either way."""
    if not trace.is_read(weight.where):
        return None
    for turned in (False, True):
        held = weight.map(partial(_held, order=order, turned=turned))
        if trace.held(node, "weight", held, scale) is not None:
            return turned
    return None


def product(trace: Trace, node: onnx.NodeProto, a: Value, b: Value) -> Value:
    """a (..., M, K) b (..., K, N), the leading axes equal, samples among them."""
    rank, left, right = len(a.layout.axes), a.layout, b.layout
    if left.mixture != right.mixture or left.samples > rank - 3 or rank != len(right.axes):
        raise refuse(node, f"it mixes samples: {left} times {right} is no product for each sample")
    if left.shape[:-2] != right.shape[:-2] or left.shape[-1] != right.shape[-2]:
        raise refuse(node, f"{left} times {right} does not fit: give both the same leading axes")
    lead = [axis for axis in left.inner if axis < rank - 2]
    sizes = [left.size(axis) for axis in lead]
    rows, features, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    x = arranged(trace, node, a, [*lead, rank - 2, rank - 1], [*sizes, rows, features])
    # The keys of an attention are transposed for the product; the core reads them without moving them.
    turned = _stride(right, rank - 1) > _stride(right, rank - 2)
    last = {rank - 2: features, rank - 1: columns}
    pair = sorted(last, reverse=turned)
    y = arranged(trace, node, b, [*lead, *pair], [*sizes, *(last[axis] for axis in pair)])
    number = trace.append(node, "matmul", [x, y], [*sizes, rows, columns], ints=[turned])
    made = dict(zip([*lead, rank - 2, rank - 1], [*sizes, rows, columns], strict=True))
    return Value(number, left.packed(list(made), made), node.output[0])


def _stride(layout: Layout, axis: int) -> int:
    return min((factor.stride for factor in layout.axes[axis]), default=0)


DENSE_OPS: dict[str, Handler] = {
    "Gemm": gemm,
    "MatMul": matmul,
}
