"""Constant folding: what a node makes of constants, one function an ONNX op.

Only ops that move elements are folded, so that every float keeps its position in the file and a weight that the
graph slices or transposes out of an initializer can still be written back. In integer shape vectors None stands
for the number of samples, as `Shape` of an activation yields it.

To add an op: write its function and give it a line in `FOLDS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from .onnx_trace import Const, Trace, attributes, refuse, to_array


def axes_of(node: onnx.NodeProto, axes: Const | None) -> tuple[int, ...] | None:
    """Squeeze's and Unsqueeze's axes: an input since opset 13, an attribute before."""
    given = attributes(node).get("axes") if axes is None else axes.array.ravel().tolist()
    return None if given is None else tuple(int(axis) for axis in given)


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
    return x


def cast(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    """A Cast to the type it has; of whole numbers to int64. Others lose the way back."""
    dtype = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
    if x.array.dtype in (dtype, object):
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
    places = [part.where for part in parts if part.where is not None]
    where = np.concatenate(places, axis) if len(places) == len(parts) else None
    return Const(np.concatenate([part.array for part in parts], axis), where)


def gather(trace: Trace, node: onnx.NodeProto, x: Const, indices: Const) -> Const:
    axis, chosen = attributes(node).get("axis", 0), indices.array
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
        # ONNX's "to the very start" is an end below -size, which Python would wrap around.
        end = None if step < 0 and ends[at] < -x.array.shape[axis] else ends[at]
        cut[axis] = slice(starts[at], end, step)
    return x.map(lambda a: a[tuple(cut)])


def shape(trace: Trace, node: onnx.NodeProto, x: Const) -> Const:
    bounds = attributes(node)
    return Const(np.array(x.array.shape[bounds.get("start", 0) : bounds.get("end")], np.int64))


FOLDS: dict[str, Callable[..., Const]] = {
    "Cast": cast,
    "Concat": concat,
    "Constant": constant,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": identity,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": slice_,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
