"""Constant masks: the `mask` op of the plan, and minus infinity, which a plan does not hold.

Exporters write an attention's mask as numbers added to the scores (0, and minus infinity or a large negative number),
or as a Where over a constant condition. What is masked has a weight of 0 after the softmax and no gradient. For minus
infinity the plan has LOWEST, and the Value says which elements it stands for, so that a softmax alone can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from .arrange import settled
from .items import Value
from .nodes import refuse
from .trace import Trace

LOWEST = -1e30  # e^LOWEST is 0, and float32 holds a sum of many
NOWHERE = np.zeros((), bool)  # what is known of a Value that is minus infinity where the input says so
FAR = -1e4  # what exporters add to scores to mask them begins here
FARTHEST = -1e30  # from here on a sum with it is itself, in float32


def is_additive_mask(array: np.ndarray) -> bool:
    """Whether it holds zeros and numbers so low that a softmax makes zeros out of them, and nothing else: the graph
    computes with such a constant, and nobody wants it trained."""
    return bool(array.size > 1 and ((array == 0) | (array <= FAR)).all() and (array < 0).any())


def masked(trace: Trace, node: onnx.NodeProto, value: Value, keep: np.ndarray, fill: float) -> Value:
    """The value where `keep` is True, and `fill` elsewhere; `keep` broadcasts to the value's shape in ONNX."""
    rank = max(len(value.layout.axes), keep.ndim)
    value = replace(value, layout=value.layout.unsqueezed(range(rank - len(value.layout.axes))))
    layout, aligned = value.layout, (1,) * (rank - keep.ndim) + keep.shape
    samples = layout.samples >= 0 and aligned[layout.samples] != 1
    if samples or any(size not in (1, layout.size(at)) for at, size in enumerate(aligned)):
        raise refuse(node, f"its mask {keep.shape} does not fit {layout}: give each sample the same mask")
    low, hidden = float(max(fill, LOWEST)) if np.isneginf(fill) else float(fill), value.hidden
    if np.isneginf(fill):
        hidden = either(hidden, ~keep)
    if keep.all():
        return replace(value, tensor=node.output[0])
    value, order = settled(trace, node, value)
    laid = keep.reshape(aligned).transpose([*order, *(axis for axis in range(rank) if axis not in order)])
    laid = laid.reshape([aligned[axis] for axis in order])
    shape, floats = trace.shapes[value.number], [low]
    if (ints := _triangle(laid, shape)) is not None:
        number = trace.append(node, "mask", [value.number], shape, ints=ints, floats=floats)
    else:
        number = trace.append(node, "mask", [value.number], shape, params=[_param(trace, node, laid)], floats=floats)
    return Value(number, value.layout, node.output[0], hidden=hidden)


def either(first: np.ndarray | None, other: np.ndarray | None) -> np.ndarray:
    """Where one or the other is minus infinity, as far as that is known."""
    if first is None or other is None:
        return NOWHERE if first is other else np.asarray(other if first is None else first)
    return NOWHERE if first is NOWHERE or other is NOWHERE else np.asarray(np.logical_or(first, other))


def _triangle(keep: np.ndarray, shape: Sequence[int]) -> tuple[int, int] | None:
    """The op's ints if the mask is a triangle of the last two axes, which needs no param."""
    if keep.ndim < 2 or keep.shape[-2:] != tuple(shape[-2:]) or keep.size != keep.shape[-2] * keep.shape[-1]:
        return None
    rows, columns = keep.shape[-2:]
    matrix = keep.reshape(rows, columns)
    lower, upper = int(matrix[0].sum()) - 1, columns - int(matrix[0].sum())
    if np.array_equal(matrix, np.tri(rows, columns, lower, dtype=bool)):
        return 0, lower
    if np.array_equal(matrix, ~np.tri(rows, columns, upper - 1, dtype=bool)):
        return 1, upper
    return None


def _param(trace: Trace, node: onnx.NodeProto, keep: np.ndarray) -> int:
    """The mask as numbers, one param for all nodes with the same one: a model has a mask for each layer."""
    while keep.ndim and keep.shape[0] == 1:
        keep = keep[0]
    key = keep.shape, keep.tobytes()
    if key not in trace.masks:
        trace.masks[key] = trace.constant(node, "mask", keep.astype(np.float32))
    return trace.masks[key]


def refuse_masked_rows(node: onnx.NodeProto, value: Value, axes: Sequence[int]) -> None:
    """Refuses a softmax over nothing but minus infinity, which gives NaN."""
    if value.hidden is None:
        return
    rank = len(value.layout.axes)
    hidden = value.hidden.reshape((1,) * (rank - value.hidden.ndim) + value.hidden.shape)
    if hidden.all(tuple(axes)).any():
        raise refuse(node, "its mask leaves nothing of a row, whose softmax is no number: leave one place of each row")
