"""Ops of the plan that read one axis at other places: resize, extend and stride (src/ops/along.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from ..arrange import settled
from ..items import Value
from ..trace import Trace


def along(
    trace: Trace,
    node: onnx.NodeProto,
    op: str,
    value: Value,
    *,
    axis: int,
    size: int,
    ints: Sequence[int],
    floats: Sequence[float] = (),
) -> Value:
    """`op` along ONNX's `axis`, which then has `size` elements. `ints` follow the axis in the plan's node."""
    value, order = settled(trace, node, value)
    sizes = {at: value.layout.size(at) for at in order} | {axis: size}
    shape = [sizes[at] for at in order]
    number = trace.append(node, op, [value.number], shape, ints=[order.index(axis), *ints], floats=floats)
    return replace(value, number=number, layout=value.layout.packed(order, sizes), tensor=node.output[0])
