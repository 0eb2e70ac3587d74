"""ConvTranspose over one or two axes: the convolution from the output's size to the input's, run backwards."""

from __future__ import annotations

from typing import Any

import onnx

from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .window import Pair, image, made, pair, pixels


def conv_transpose(trace: Trace, node: onnx.NodeProto, x: Item, w: Item, b: Item | None = None) -> Value:
    """W is (C, O / groups, [KH,] KW) in ONNX and (KH, KW, O / groups, C) in the plan."""
    value, weight = value_of(node, x), trace.weight(node, "weight", w, 1)
    channels = image(node, value)[0]
    groups = attributes(node).get("group", 1)
    inputs, each, *kernel = weight.array.shape
    if len(kernel) != len(value.layout.axes) - 2 or groups < 1 or inputs != channels or channels % groups:
        what = f"weight {weight.array.shape} in {groups} groups"
        raise refuse(node, f"{what} does not fit an input of {value.layout}: check the export")
    ints, space = _geometry(node, value, kernel)
    if len(kernel) == 1:
        weight = weight.map(lambda array: array[:, :, None])
    params = [trace.param(node, "weight", weight.map(lambda array: array.transpose(2, 3, 1, 0)))]
    outputs = each * groups
    if b is not None:
        bias = trace.weight(node, "bias", b, 2)
        if bias.array.shape != (outputs,):
            raise refuse(node, f"its bias has shape {bias.array.shape}, not ({outputs},): check the export")
        params.append(trace.param(node, "bias", bias, layer=params[0]))
    shape = (*space, outputs)
    number = pixels(trace, node, value)
    number = trace.append(node, "conv_transpose", [number], shape, params=params, ints=[*ints, groups, *space])
    return made(trace, node, value, number)


def _geometry(node: onnx.NodeProto, value: Value, kernel: list[int]) -> tuple[list[int], Pair]:
    """Strides, pads and dilations in the plan's order, and the output's (H, W)."""
    given, rank, size = attributes(node), len(kernel), image(node, value)[1:]
    taps = pair(node, {"kernel": kernel}, "kernel", rank, 1)
    if given.get("kernel_shape") and list(given["kernel_shape"]) != kernel:
        raise refuse(node, f"kernel_shape={given['kernel_shape']}, but its weight is {kernel}: export again")
    strides, dilations = (pair(node, given, name, rank, 1) for name in ("strides", "dilations"))
    extra = [0] * (2 - rank) + list(given.get("output_padding") or [0] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(taps, dilations, strict=True)]
    whole = [(n - 1) * s + far + more for n, s, far, more in zip(size, strides, reach, extra, strict=True)]
    begin, end, out = _ends(node, given, rank, whole=whole, even=[n * s for n, s in zip(size, strides, strict=True)])
    for n, s, far, before, after, length in zip(size, strides, reach, begin, end, out, strict=True):
        if length < 1 or (length + before + after - far) // s + 1 != n:
            raise refuse(
                node, f"an output of {out} does not belong to an input of {size}: use a smaller output_padding"
            )
    return [*strides, *begin, *end, *dilations], (out[0], out[1])


def _ends(
    node: onnx.NodeProto, given: dict[str, Any], rank: int, *, whole: list[int], even: list[int]
) -> tuple[list[int], list[int], list[int]]:
    """The pads before and after (H, W), and the output's size: as given, or from output_shape or auto_pad. `whole` is
    the output's size without pads, `even` that of auto_pad=SAME."""
    mode, still = given.get("auto_pad", "NOTSET"), [0] * (2 - rank)
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise refuse(node, f"auto_pad={mode} is not known: export with explicit pads")
    wanted = list(given.get("output_shape") or ())
    if wanted or mode.startswith("SAME"):
        out = [*([1] * (2 - rank)), *wanted[-rank:]] if wanted else even
        spare = [max(0, full - length) for full, length in zip(whole, out, strict=True)]
        small, large = [n // 2 for n in spare], [n - n // 2 for n in spare]
        return (small, large, out) if mode == "SAME_UPPER" else (large, small, out)
    pads = [0] * (2 * rank) if mode == "VALID" else list(given.get("pads") or [0] * (2 * rank))
    if len(pads) != 2 * rank or any(not 0 <= pad < 2**16 for pad in pads):
        raise refuse(node, f"pads={pads} are not known: export with pads of 0 or more")
    begin, end = still + pads[:rank], still + pads[rank:]
    return begin, end, [full - before - after for full, before, after in zip(whole, begin, end, strict=True)]


CONV_TRANSPOSE_OPS: dict[str, Handler] = {"ConvTranspose": conv_transpose}
