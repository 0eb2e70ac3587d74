"""Convolutions over one or two axes (window.py)."""

from __future__ import annotations

import onnx

from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .window import image, made, pixels, window_of


def conv(trace: Trace, node: onnx.NodeProto, x: Item, w: Item, b: Item | None = None) -> Value:
    """W is (O, C / groups, [KH,] KW) in ONNX and (KH, KW, C / groups, O) in the plan, or (KH, KW, O) if every channel
    has its own filters."""
    value, weight = value_of(node, x), trace.weight(node, "weight", w, 1)
    channels = image(node, value)[0]
    groups = attributes(node).get("group", 1)
    outputs, each, *kernel = weight.array.shape
    number = pixels(trace, node, value)
    if len(kernel) != len(value.layout.axes) - 2 or groups < 1 or each * groups != channels or outputs % groups:
        shape = f"weight {weight.array.shape} in {groups} groups"
        raise refuse(node, f"{shape} does not fit an input of {value.layout}: check the export")
    window = window_of(node, value, kernel)
    if len(kernel) == 1:
        weight = weight.map(lambda array: array[:, :, None])
    op = "depthwise" if 1 < groups == channels else "conv"
    weight = weight.map(lambda array: array.transpose(2, 3, 1, 0))  # (KH, KW, C / groups, O)
    if op == "depthwise":
        weight = weight.map(lambda array: array[:, :, 0])
    params = [trace.param(node, "weight", weight)]
    if b is not None:
        bias = trace.weight(node, "bias", b, 2)
        if bias.array.shape != (outputs,):
            raise refuse(node, f"its bias has shape {bias.array.shape}, not ({outputs},): check the export")
        params.append(trace.param(node, "bias", bias, layer=params[0]))
    ints = [*window.ints, *window.dilations, *([groups] if op == "conv" else [])]
    number = trace.append(node, op, [number], (*window.output, outputs), params=params, ints=ints)
    return made(trace, node, value, number)


CONV_OPS: dict[str, Handler] = {"Conv": conv}
