"""The geometry of windows that slide over one or two axes, for convolutions and pooling. One axis is an image of height
1 here; images are channels last in the plan, channels first in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..arrange import arranged
from ..items import Value
from ..nodes import attributes, refuse
from ..trace import Trace

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A sliding window; every pair is for (H, W)."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    begin: Pair
    end: Pair
    beyond: Pair  # the part of `end` that ceil_mode adds
    output: Pair

    @property
    def ints(self) -> list[int]:
        """Strides and pads in the plan's order."""
        return [*self.strides, *self.begin, *self.end]


def image(node: onnx.NodeProto, value: Value) -> tuple[int, int, int]:
    """(channels, H, W) of a sample."""
    layout = value.layout
    if not layout.leads or len(layout.axes) not in (3, 4):
        raise refuse(node, f"its input is {layout}: only (samples, channels, [height,] width) is trained")
    channels, *space = layout.sample_shape
    return (channels, 1, *space) if len(space) == 1 else (channels, *space)  # type: ignore[return-value]


def pixels(trace: Trace, node: onnx.NodeProto, value: Value) -> int:
    """The plan's value as (H, W, C)."""
    channels, height, width = image(node, value)
    return arranged(trace, node, value, [*value.layout.inner[1:], 1], [height, width, channels])


def made(trace: Trace, node: onnx.NodeProto, value: Value, number: int) -> Value:
    """Value `number` of the plan, an image (H, W, C), as ONNX has it."""
    height, width, channels = trace.shapes[number]
    sizes = [channels, height, width] if len(value.layout.axes) == 4 else [channels, width]
    order = [*range(2, len(sizes) + 1), 1]
    return Value(number, value.layout.packed(order, dict(enumerate(sizes, 1))), node.output[0])


def pair(node: onnx.NodeProto, given: dict[str, Any], name: str, rank: int, default: int) -> Pair:
    """The attribute for (H, W). With one axis it is (1, W), which leaves H as it is."""
    values = given.get(name) or [default] * rank
    if len(values) != rank or any(not 0 < value < 2**16 for value in values):
        raise refuse(node, f"{name}={list(values)} does not fit {rank} axes: check the export")
    return (1, values[0]) if rank == 1 else (values[0], values[1])


def window_of(node: onnx.NodeProto, value: Value, kernel: Sequence[int] | None) -> Window:
    given, rank = attributes(node), len(value.layout.axes) - 2
    if kernel is None:
        if "kernel_shape" not in given:
            raise refuse(node, "it has no kernel_shape: export the model again")
        size = pair(node, given, "kernel_shape", rank, 1)
    else:
        size = pair(node, {"kernel": list(kernel)}, "kernel", rank, 1)
        if given.get("kernel_shape") and list(given["kernel_shape"]) != list(kernel):
            raise refuse(node, f"kernel_shape={given['kernel_shape']}, but its weight is {list(kernel)}: export again")
    strides, dilations = (pair(node, given, name, rank, 1) for name in ("strides", "dilations"))
    space = image(node, value)[1:]
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    begin, end = _pads(node, given, rank, space=list(space), reach=reach, strides=strides)
    output, beyond = [], [0, 0]
    for at, length in enumerate(space):
        room = length + begin[at] + end[at] - reach[at]
        steps = room // strides[at]
        if given.get("ceil_mode", 0) and room % strides[at] and (steps + 1) * strides[at] < length + begin[at]:
            steps += 1  # the last window reaches into more padding, but not into padding alone
            beyond[at] = strides[at] - room % strides[at]
            end[at] += beyond[at]
        output.append(steps + 1)
        if room < 0 or steps < 0:
            raise refuse(node, f"its window of {reach[at]} does not fit {length} elements: check the export")
    return Window(size, strides, dilations, tuple(begin), tuple(end), tuple(beyond), tuple(output))  # type: ignore[arg-type]


def _pads(
    node: onnx.NodeProto,
    given: dict[str, Any],
    rank: int,
    *,
    space: list[int],
    reach: list[int],
    strides: Pair,
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
