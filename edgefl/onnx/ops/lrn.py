"""LRN, local response normalization over neighbouring channels."""

from __future__ import annotations

from dataclasses import replace

import onnx

from ..arrange import settled
from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace


def lrn(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, given = value_of(node, x), attributes(node)
    if not value.layout.leads or len(value.layout.axes) != 4 or given.get("size", 0) % 2 != 1:
        raise refuse(node, f"size={given.get('size')} of {value.layout}: use an odd size, of (samples, channels, H, W)")
    value, _ = settled(trace, node, value, [*value.layout.inner[1:], 1])
    floats = [given.get(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    if not (0 <= floats[0] <= 1e6 and 0 <= floats[1] <= 1e3 and 1e-6 <= floats[2] <= 1e6):
        raise refuse(node, f"alpha, beta, bias = {floats}: use a bias above 0, and the others from 0 on")
    number = trace.append(node, "lrn", [value.number], trace.shapes[value.number], ints=[given["size"]], floats=floats)
    return replace(value, number=number, tensor=node.output[0])


LRN_OPS: dict[str, Handler] = {"LRN": lrn}
