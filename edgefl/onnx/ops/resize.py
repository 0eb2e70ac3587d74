"""Resize and Upsample: each axis by itself, nearest or linear. Cubic interpolation is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .along import along
from .shape import const_of, seen

# Their places are the numbers in the plan (src/ops/along.c).
MODES = ("nearest", "linear")
COORDINATES = (
    "half_pixel",
    "asymmetric",
    "pytorch_half_pixel",
    "align_corners",
    "tf_half_pixel_for_nn",
    "half_pixel_symmetric",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resize(trace: Trace, node: onnx.NodeProto, x: Item, *inputs: Item | None) -> Value:
    """Inputs are roi, scales and sizes since opset 11, of which one of the last two counts; before, scales alone."""
    value, given = value_of(node, x), attributes(node)
    if trace.opset < 11:
        return _resized(trace, node, value, _scaled(node, value, inputs[0] if inputs else None, given), given)
    _, scales, sizes = (*inputs, None, None, None)[:3]
    wanted = const_of(node, sizes)
    if wanted is not None and wanted.array.size:
        targets = _sized(node, value, [int(size) for size in wanted.array.ravel()], given)
    else:
        targets = _scaled(node, value, scales, given)
    return _resized(trace, node, value, targets, given)


def upsample(trace: Trace, node: onnx.NodeProto, x: Item, scales: Item | None = None) -> Value:
    """Scales are an input since opset 9, an attribute before."""
    value, given = value_of(node, x), attributes(node)
    return _resized(trace, node, value, _scaled(node, value, scales, given), given)


Targets = dict[int, tuple[int, float]]  # axis: its new size, and the scale that places follow


def _axes(node: onnx.NodeProto, value: Value, given: dict[str, Any], count: int) -> list[int]:
    rank = len(value.layout.axes)
    axes = [int(axis) % rank for axis in given.get("axes") or range(rank)]
    if len(axes) != count or len(set(axes)) != count:
        raise refuse(node, f"has {count} scales or sizes for {len(axes)} axes of {value.layout}: check the export")
    return axes


def _scaled(node: onnx.NodeProto, value: Value, scales: Item | None, given: dict[str, Any]) -> Targets:
    stored = const_of(node, scales)
    factors = np.array(given.get("scales", ()), np.float32) if stored is None else np.float32(stored.array.ravel())
    axes, targets = _axes(node, value, given, factors.size), {}
    for axis, factor in zip(axes, factors, strict=True):
        if not 0 < factor < np.inf or (axis == value.layout.samples and factor != 1):
            raise refuse(node, f"scales {factors.tolist()} are not trained: use positive ones, 1 for the samples")
        if factor != 1:
            targets[axis] = int(np.float32(value.layout.shape[axis]) * factor), float(factor)
    return targets


def _sized(node: onnx.NodeProto, value: Value, sizes: list[int], given: dict[str, Any]) -> Targets:
    axes, shape = _axes(node, value, given, len(sizes)), value.layout.shape
    policy = given.get("keep_aspect_ratio_policy", "stretch")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise refuse(node, f"keep_aspect_ratio_policy={policy} is not known: use stretch")
    if policy != "stretch":
        if value.layout.samples in axes:
            raise refuse(node, f"keep_aspect_ratio_policy={policy} would resize the samples: name the other axes")
        factors = [size / shape[axis] for size, axis in zip(sizes, axes, strict=True)]
        factor = min(factors) if policy == "not_larger" else max(factors)
        return {axis: (int(shape[axis] * factor + 0.5), float(np.float32(factor))) for axis in axes}
    targets = {}
    for axis, size in zip(axes, sizes, strict=True):
        if axis == value.layout.samples and size != shape[axis]:
            raise refuse(node, f"sizes {sizes} change the number of samples: keep the first axis for them")
        if size != shape[axis]:
            targets[axis] = size, float(np.float32(size) / np.float32(shape[axis]))
    return targets


def _resized(trace: Trace, node: onnx.NodeProto, value: Value, targets: Targets, given: dict[str, Any]) -> Value:
    old = trace.opset < 11
    mode = given.get("mode", "nearest")
    coordinates = "asymmetric" if old else given.get("coordinate_transformation_mode", "half_pixel")
    rounding = given.get("nearest_mode", "round_prefer_floor")
    if mode not in MODES:
        raise refuse(node, f"mode={mode} is not trained: resize with nearest or linear")
    if coordinates not in COORDINATES or rounding not in ROUNDINGS:
        raise refuse(node, f"{coordinates} with {rounding} is not trained: use half_pixel, asymmetric or align_corners")
    if given.get("antialias", 0) and any(scale < 1 for _, scale in targets.values()):
        raise refuse(node, "antialias is not trained: shrink without it, or by average pooling")
    for axis, (size, scale) in targets.items():
        if size < 1:
            raise refuse(node, f"leaves nothing of axis {axis} of {value.layout}: use a larger scale")
        if old:  # the first Resize took the next pixel up where it shrinks
            rounding = "ceil" if scale < 1 else "floor"
        ints = [size, MODES.index(mode), COORDINATES.index(coordinates), ROUNDINGS.index(rounding)]
        value = along(trace, node, "resize", value, axis=axis, size=size, ints=ints, floats=[scale])
    return seen(node, value, value.layout)


RESIZE_OPS: dict[str, Handler] = {"Resize": resize, "Upsample": upsample}
