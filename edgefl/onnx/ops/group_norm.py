"""InstanceNormalization and GroupNormalization: each sample by itself, by channels or groups of them.

torch writes a group norm as Reshape, InstanceNormalization of ones and zeros, Reshape, Mul and Add. The layout follows
the reshapes, so no data moves there either.
"""

from __future__ import annotations

from math import prod

import onnx

from ..arrange import in_order, settled
from ..items import Const, Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .norm import is_plain


def _by_channel(trace: Trace, node: onnx.NodeProto, value: Value) -> tuple[Value, int]:
    """The value with its channels, ONNX's axis 1, evenly spaced in memory; and their distance there."""
    factors = value.layout.factors([1])
    if len(factors) > 1:
        value = in_order(trace, node, value)
        factors = value.layout.factors([1])
    return value, factors[0].stride if factors else prod(trace.shapes[value.number])


def _normalized(trace: Trace, node: onnx.NodeProto, value: Value, groups: int, affine: tuple[Item, Item]) -> Value:
    """By `groups` of channels; `affine` is scale and shift, (groups) or (channels)."""
    layout, epsilon = value.layout, attributes(node).get("epsilon", 1e-5)
    if not layout.leads or len(layout.axes) < 3:
        raise refuse(node, f"it normalises {layout} other than by channel: keep samples first, channels second")
    channels = layout.size(1)
    if groups < 1 or channels % groups:
        raise refuse(node, f"{channels} channels do not make {groups} groups: check the export")
    weights = [] if is_plain(trace, *affine) else [(1, "scale", affine[0]), (2, "bias", affine[1])]
    value, stride = _by_channel(trace, node, value)
    sizes = {item.array.size for _, _, item in weights if isinstance(item, Const)}
    if stride > 1 and groups < channels and channels in sizes:  # the op's weights are for columns: channels last
        value, _ = settled(trace, node, value, [*(at for at in layout.inner if at != 1), 1])
        stride = 1
    params: list[int] = []
    for slot, role, item in weights:
        weight = trace.weight(node, role, item, slot)
        if weight.array.shape not in ((groups,), (channels,)):
            raise refuse(node, f"its {role} has shape {weight.array.shape} for {channels} channels: check the export")
        params.append(trace.param(node, role, weight, layer=params[0] if params else None))
    number = trace.append(
        node,
        "group_norm",
        [value.number],
        trace.shapes[value.number],
        params=params,
        ints=[groups, channels // groups * stride],
        floats=[epsilon],
    )
    return Value(number, value.layout, node.output[0])


def instance_norm(trace: Trace, node: onnx.NodeProto, x: Item, scale: Item, shift: Item) -> Value:
    value = value_of(node, x)
    return _normalized(trace, node, value, value.layout.size(1) if len(value.layout.axes) > 1 else 0, (scale, shift))


def group_norm(trace: Trace, node: onnx.NodeProto, x: Item, scale: Item, shift: Item) -> Value:
    return _normalized(trace, node, value_of(node, x), attributes(node).get("num_groups", 0), (scale, shift))


GROUP_NORM_OPS: dict[str, Handler] = {
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
}
