"""Convolutions and pooling over one or two axes (window.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx

from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .window import Window, image, made, pixels, window_of


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


def pool(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value, given = value_of(node, x), attributes(node)
        channels, *space = image(node, value)
        window, counts = window_of(node, value, None), given.get("count_include_pad", 0)
        if any(name and trace.readers.get(name) for name in node.output[1:]):
            raise refuse(node, "its indices are read: use pooling without them")
        if any(pad >= size for pad, size in zip(window.begin + window.end, window.kernel * 2, strict=True)):
            raise refuse(node, f"pads {window.begin + window.end} leave windows of padding alone: use smaller pads")
        if any(step > size for step, size in zip(window.dilations, space, strict=True)):
            raise refuse(node, f"dilations {list(window.dilations)} are larger than {value.layout}: use smaller ones")
        number = pixels(trace, node, value)
        if op == "avgpool" and counts and window.beyond != (0, 0):
            number, window, counts = _padded(trace, node, number, window)
        ints = [*window.kernel, *window.ints] + ([counts] if op == "avgpool" else [])
        ints += window.dilations if window.dilations != (1, 1) else ()
        return made(trace, node, value, trace.append(node, op, [number], (*window.output, channels), ints=ints))

    return handler


def _padded(trace: Trace, node: onnx.NodeProto, number: int, window: Window) -> tuple[int, Window, int]:
    """The padding that counts as zeros, apart: what ceil_mode lets a window reach beyond it does not count."""
    ends = [end - more for end, more in zip(window.end, window.beyond, strict=True)]
    high, wide, channels = trace.shapes[number]
    shape = (high + window.begin[0] + ends[0], wide + window.begin[1] + ends[1], channels)
    number = trace.append(node, "pad", [number], shape, ints=[*window.begin, 0, *ends, 0], floats=[0.0])
    return number, replace(window, begin=(0, 0), end=window.beyond), 0


def global_max(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    channels, height, width = image(node, value)
    ints = [height, width, height, width, 0, 0, 0, 0]
    return made(
        trace, node, value, trace.append(node, "maxpool", [pixels(trace, node, value)], (1, 1, channels), ints=ints)
    )


def global_average(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    channels, *_ = image(node, value)
    number = trace.append(node, "mean", [pixels(trace, node, value)], (channels,), ints=[0, 1])
    space = range(2, len(value.layout.axes))
    sizes = {1: channels} | dict.fromkeys(space, 1)
    return Value(number, value.layout.packed([*space, 1], sizes), node.output[0])


CONV_OPS: dict[str, Handler] = {
    "AveragePool": pool("avgpool"),
    "Conv": conv,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "MaxPool": pool("maxpool"),
}
