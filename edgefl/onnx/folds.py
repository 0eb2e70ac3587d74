"""Constant folding: the result of a node whose inputs are all constants, one function for each ONNX op.

An op that only moves elements keeps their positions in the file, so a weight that the graph slices out of an
initializer or transposes can be written back. Arithmetic on constants is in computed.py.

To add an op: write its function and give it a line in `FOLDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .computed import COMPUTED, bounded
from .items import Const, axes_of
from .layout import OPEN
from .nodes import attributes, refuse, to_array
from .trace import Trace


def constant(trace: Trace, node: onnx.NodeProto) -> Const:
    if len(node.attribute) != 1:
        raise refuse(node, "a Constant has exactly one value: export the model again")
    attribute = node.attribute[0]
    if attribute.name == "value":
        return trace.stored(to_array(attribute.t, f"Constant {node.output[0]!r}"), "value", trace.index)
    if attribute.name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise refuse(node, f"{attribute.name} is not supported: store a dense numeric tensor")
    dtype = np.float32 if "float" in attribute.name else np.int64
    array = np.array(helper.get_attribute_value(attribute), dtype)
    return trace.stored(array, attribute.name, trace.index)


def identity(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    return replace(x, alias=node.output[0], copies=x.copies | {node.output[0]})


def cast(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    return cast_to(x, helper.tensor_dtype_to_np_dtype(attributes(node)["to"]))


def cast_like(trace: Trace, node: onnx.NodeProto, x: Const, like: Const) -> Const:
    return cast_to(x, like.array.dtype)


def cast_to(x: Const, dtype: np.dtype[Any]) -> Const:
    """A cast to the same type changes nothing; after any other the tensor cannot be written back."""
    if x.array.dtype == dtype:
        return x
    return Const(x.array.astype(dtype), None, x.name)


def transpose(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    perm = attributes(node).get("perm")
    return x.map(lambda a: np.transpose(a, perm))


def reshape(trace: Trace, node: onnx.NodeProto, x: Const, shape: Const) -> Const:
    given = shape.array.ravel().tolist()
    copied = not attributes(node).get("allowzero", 0)
    target = [x.array.shape[axis] if size == 0 and copied else size for axis, size in enumerate(given)]
    return x.map(lambda a: a.reshape(target))


def flatten(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    axis = attributes(node).get("axis", 1) % (x.array.ndim + 1)
    return x.map(lambda a: a.reshape(int(np.prod(a.shape[:axis])), -1))


def squeeze(trace: Trace, node: onnx.NodeProto, x: Const, axes: Const | None = None) -> Const:
    return x.map(lambda a: np.squeeze(a, axes_of(node, axes)))


def unsqueeze(trace: Trace, node: onnx.NodeProto, x: Const, axes: Const | None = None) -> Const:
    return x.map(lambda a: np.expand_dims(a, axes_of(node, axes) or ()))


def concat(trace: Trace, node: onnx.NodeProto, *parts: Const) -> Const:
    axis = attributes(node)["axis"]
    bounded(node, sum(part.array.size for part in parts))
    places = [part.where for part in parts if part.where is not None]
    where = np.concatenate(places, axis) if len(places) == len(parts) else None
    copies = frozenset[str]().union(*(part.copies for part in parts))
    return Const(np.concatenate([part.array for part in parts], axis), where, copies=copies)


def gather(trace: Trace, node: onnx.NodeProto, x: Const, indices: Const) -> Const:
    axis, chosen = attributes(node).get("axis", 0), indices.array
    bounded(node, chosen.size * x.array.size // max(1, x.array.shape[axis]))
    taken = x.map(lambda a: np.asarray(np.take(a, chosen, axis), a.dtype))
    once = np.unique(chosen % x.array.shape[axis]).size == chosen.size
    return taken if once else Const(taken.array, None, x.name)


def slice_(trace: Trace, node: onnx.NodeProto, x: Const, *given: Const | None) -> Const:
    """Bounds are inputs (starts, ends, axes, steps) since opset 10, attributes before."""
    names = ("starts", "ends", "axes", "steps")
    if given:
        bounds = {name: g.array.ravel().tolist() for name, g in zip(names, given, strict=False) if g is not None}
    else:
        bounds = attributes(node)
    starts, ends = bounds["starts"], bounds["ends"]
    cut = [slice(None)] * x.array.ndim
    for at, axis in enumerate(bounds.get("axes", range(len(starts)))):
        step = bounds["steps"][at] if "steps" in bounds else 1
        # An end below -size means "up to and with the first" in ONNX; Python would count it from the end.
        end = None if step < 0 and ends[at] < -x.array.shape[axis] else ends[at]
        cut[axis] = slice(starts[at], end, step)
    return x.map(lambda a: a[tuple(cut)])


def _one_sample(node: onnx.NodeProto, shape: Const) -> tuple[int, ...]:
    """The shape for one sample: a tensor made from constants is the same for every sample."""
    sizes = tuple(int(size) // OPEN if size % OPEN == 0 else int(size) for size in shape.array.ravel())
    bounded(node, math.prod(sizes))
    return sizes


def constant_of_shape(trace: Trace, node: onnx.NodeProto, shape: Const) -> Const:
    value = attributes(node).get("value")
    fill = np.zeros(1, np.float32) if value is None else to_array(value, f"the value of {node.output[0]!r}")
    return Const(np.full(_one_sample(node, shape), fill.ravel()[0]))


def expand(trace: Trace, node: onnx.NodeProto, x: Const, shape: Const) -> Const:
    target = np.broadcast_shapes(x.array.shape, _one_sample(node, shape))
    if math.prod(target) == x.array.size:
        return x.map(lambda a: a.reshape(target))
    return Const(np.broadcast_to(x.array, target), None, x.name)


def split(trace: Trace, node: onnx.NodeProto, x: Const, sizes: Const | None = None) -> tuple[Const, ...]:
    axis = attributes(node).get("axis", 0)
    ends = np.cumsum(split_sizes(node, x.array.shape[axis], sizes))
    places = [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return tuple(x.map(partial(np.take, indices=place, axis=axis)) for place in places)


MOST_PARTS = 4096  # of a Split: a file names their number in a few bytes


def split_sizes(node: onnx.NodeProto, size: int, given: Const | None) -> list[int]:
    """The sizes of the parts: an input since opset 13, an attribute before. Without either they are equal, and the last
    may be smaller."""
    sizes = attributes(node).get("split") if given is None else given.array.ravel().tolist()
    if sizes is None:
        parts = attributes(node).get("num_outputs", len(node.output))
        if not 0 < parts <= min(size, MOST_PARTS):
            raise refuse(node, f"splits {size} into {parts} parts: check the export")
        share = -(-size // parts)
        sizes = [min(share, size - share * at) for at in range(parts)]
    if sum(sizes) != size or min(sizes) < 1 or len(sizes) < len(node.output):
        raise refuse(node, f"splits {size} into {sizes}: check the export")
    return [int(part) for part in sizes]


FOLDS: dict[str, Callable[..., Const | tuple[Const, ...]]] = {
    **COMPUTED,
    "Cast": cast,
    "CastLike": cast_like,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": identity,
    "Reshape": reshape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
