"""DepthToSpace and SpaceToDepth: channels become pixels, or the reverse. PyTorch writes the same as a Reshape, a
Transpose and a Reshape, and they are nothing else here."""

from __future__ import annotations

import onnx

from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .shape import reshaped_to, seen


def depth_to_space(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, size, (samples, channels, high, wide) = _image(node, x)
    mode = attributes(node).get("mode", "DCR")
    if mode not in ("DCR", "CRD") or channels % size**2:
        raise refuse(node, f"mode={mode}, blocksize={size} do not fit {value.layout}: check the export")
    rest = channels // size**2
    split = [size, size, rest] if mode == "DCR" else [rest, size, size]
    order = [0, 3, 4, 1, 5, 2] if mode == "DCR" else [0, 1, 4, 2, 5, 3]
    value = reshaped_to(trace, node, value, [samples, *split, high, wide])
    value = seen(node, value, value.layout.transposed(order))
    return reshaped_to(trace, node, value, [samples, rest, high * size, wide * size])


def space_to_depth(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, size, (samples, channels, high, wide) = _image(node, x)
    if high % size or wide % size:
        raise refuse(node, f"blocksize={size} does not fit {value.layout}: check the export")
    value = reshaped_to(trace, node, value, [samples, channels, high // size, size, wide // size, size])
    value = seen(node, value, value.layout.transposed([0, 3, 5, 1, 2, 4]))
    return reshaped_to(trace, node, value, [samples, channels * size**2, high // size, wide // size])


def _image(node: onnx.NodeProto, x: Item) -> tuple[Value, int, tuple[int, int, int, int]]:
    """The value, the block's size, and (samples, channels, H, W)."""
    value = value_of(node, x)
    size, shape = attributes(node).get("blocksize", 0), value.layout.shape
    if len(shape) != 4 or size < 1:
        raise refuse(node, f"blocksize={size} of {value.layout}: only blocks of (samples, channels, H, W) are trained")
    return value, size, shape


DEPTH_OPS: dict[str, Handler] = {"DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth}
