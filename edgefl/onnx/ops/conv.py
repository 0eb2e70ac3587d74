"""Convolutions and pooling over one or two axes. One axis is an image of height 1 here; images are channels last in the
plan, channels first in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..arrange import arranged
from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace


@dataclass(frozen=True)
class Window:
    """A sliding window; every pair is for (H, W)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]
    output: tuple[int, int]

    @property
    def ints(self) -> list[int]:
        """Strides and pads in the plan's order."""
        return [*self.strides, *self.begin, *self.end]


def _image(node: onnx.NodeProto, value: Value) -> tuple[int, int, int]:
    """(channels, H, W) of a sample."""
    layout = value.layout
    if not layout.leads or len(layout.axes) not in (3, 4):
        raise refuse(node, f"its input is {layout}: only (samples, channels, [height,] width) is trained")
    channels, *space = layout.sample_shape
    return (channels, 1, *space) if len(space) == 1 else (channels, *space)  # type: ignore[return-value]


def _pixels(trace: Trace, node: onnx.NodeProto, value: Value) -> int:
    """The plan's value as (H, W, C)."""
    channels, height, width = _image(node, value)
    return arranged(trace, node, value, [*value.layout.inner[1:], 1], [height, width, channels])


def _made(trace: Trace, node: onnx.NodeProto, value: Value, number: int) -> Value:
    """Value `number` of the plan, an image (H, W, C), as ONNX has it."""
    height, width, channels = trace.shapes[number]
    sizes = [channels, height, width] if len(value.layout.axes) == 4 else [channels, width]
    order = [*range(2, len(sizes) + 1), 1]
    return Value(number, value.layout.packed(order, dict(enumerate(sizes, 1))), node.output[0])


def _pair(node: onnx.NodeProto, given: dict[str, Any], name: str, rank: int, default: int) -> tuple[int, int]:
    """The attribute for (H, W). With one axis it is (1, W), which leaves H as it is."""
    values = given.get(name) or [default] * rank
    if len(values) != rank or any(not 0 < value < 2**16 for value in values):
        raise refuse(node, f"{name}={list(values)} does not fit {rank} axes: check the export")
    return (1, values[0]) if rank == 1 else (values[0], values[1])


def _window(node: onnx.NodeProto, value: Value, kernel: Sequence[int] | None) -> Window:
    given, rank = attributes(node), len(value.layout.axes) - 2
    if kernel is None:
        if "kernel_shape" not in given:
            raise refuse(node, "it has no kernel_shape: export the model again")
        size = _pair(node, given, "kernel_shape", rank, 1)
    else:
        size = _pair(node, {"kernel": list(kernel)}, "kernel", rank, 1)
        if given.get("kernel_shape") and list(given["kernel_shape"]) != list(kernel):
            raise refuse(node, f"kernel_shape={given['kernel_shape']}, but its weight is {list(kernel)}: export again")
    strides, dilations = (_pair(node, given, name, rank, 1) for name in ("strides", "dilations"))
    space = _image(node, value)[1:]
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    begin, end = _pads(node, given, rank, space=list(space), reach=reach, strides=strides)
    output = []
    for at, length in enumerate(space):
        room = length + begin[at] + end[at] - reach[at]
        steps = room // strides[at]
        if given.get("ceil_mode", 0) and room % strides[at] and (steps + 1) * strides[at] < length + begin[at]:
            steps += 1  # the last window reaches into more padding, but not into padding alone
            end[at] += strides[at] - room % strides[at]
        output.append(steps + 1)
        if room < 0 or steps < 0:
            raise refuse(node, f"its window of {reach[at]} does not fit {length} elements: check the export")
    return Window(size, strides, dilations, tuple(begin), tuple(end), tuple(output))  # type: ignore[arg-type]


def _pads(
    node: onnx.NodeProto,
    given: dict[str, Any],
    rank: int,
    *,
    space: list[int],
    reach: list[int],
    strides: tuple[int, int],
) -> tuple[list[int], list[int]]:
    """The padding before and after (H, W), as given or by auto_pad."""
    mode = given.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        whole = [
            max(0, (-(-size // step) - 1) * step + far - size)
            for size, far, step in zip(space, reach, strides, strict=True)
        ]
        small, large = [pad // 2 for pad in whole], [pad - pad // 2 for pad in whole]
        return (small, large) if mode == "SAME_UPPER" else (large, small)
    pads = [0] * (2 * rank) if mode == "VALID" else list(given.get("pads") or [0] * (2 * rank))
    if mode not in ("NOTSET", "VALID") or len(pads) != 2 * rank or any(not 0 <= pad < 2**16 for pad in pads):
        raise refuse(node, f"auto_pad={mode}, pads={pads} is not known: export with explicit pads of 0 or more")
    still = [0] * (2 - rank)
    return still + pads[:rank], still + pads[rank:]


def conv(trace: Trace, node: onnx.NodeProto, x: Item, w: Item, b: Item | None = None) -> Value:
    """W is (O, C / groups, [KH,] KW) in ONNX and (KH, KW, C / groups, O) in the plan, or (KH, KW, O) if every channel
    has its own filters."""
    value, weight = value_of(node, x), trace.weight(node, "weight", w, 1)
    channels = _image(node, value)[0]
    groups = attributes(node).get("group", 1)
    outputs, each, *kernel = weight.array.shape
    pixels = _pixels(trace, node, value)
    if len(kernel) != len(value.layout.axes) - 2 or groups < 1 or each * groups != channels or outputs % groups:
        shape = f"weight {weight.array.shape} in {groups} groups"
        raise refuse(node, f"{shape} does not fit an input of {value.layout}: check the export")
    window = _window(node, value, kernel)
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
    number = trace.append(node, op, [pixels], (*window.output, outputs), params=params, ints=ints)
    return _made(trace, node, value, number)


def pool(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value, given = value_of(node, x), attributes(node)
        channels, *_ = _image(node, value)
        window, counts = _window(node, value, None), given.get("count_include_pad", 0)
        if window.dilations != (1, 1):
            raise refuse(node, f"dilations {list(window.dilations)} are not trained: pool with neighbours")
        if any(name and trace.readers.get(name) for name in node.output[1:]):
            raise refuse(node, "its indices are read: use pooling without them")
        if any(pad >= size for pad, size in zip(window.begin + window.end, window.kernel * 2, strict=True)):
            raise refuse(node, f"pads {window.begin + window.end} leave windows of padding alone: use smaller pads")
        if op == "avgpool" and counts and given.get("ceil_mode", 0):
            raise refuse(node, "ceil_mode with count_include_pad counts exporters differently: use one of them")
        ints = [*window.kernel, *window.ints] + ([counts] if op == "avgpool" else [])
        shape = (*window.output, channels)
        return _made(trace, node, value, trace.append(node, op, [_pixels(trace, node, value)], shape, ints=ints))

    return handler


def global_max(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    channels, height, width = _image(node, value)
    ints = [height, width, height, width, 0, 0, 0, 0]
    return _made(
        trace, node, value, trace.append(node, "maxpool", [_pixels(trace, node, value)], (1, 1, channels), ints=ints)
    )


def global_average(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    channels, *_ = _image(node, value)
    number = trace.append(node, "mean", [_pixels(trace, node, value)], (channels,), ints=[0, 1])
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
