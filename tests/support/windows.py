"""NumPy float64 references of what slides a window over (B, H, W, C), and plans that isolate one such op."""

from __future__ import annotations

import numpy as np

from edgefl.core.plan import Node, Param, Plan


def taps(x, kernel, stride, pads, dilation=(1, 1), fill=0.0):
    """(KH, KW, B, OH, OW, C): what each tap sees."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    high, wide = ((x.shape[1 + i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1))
    seen = np.empty((*kernel, len(x), high, wide, x.shape[3]))
    for kh, kw in np.ndindex(*kernel):
        rows = slice(kh * dilation[0], kh * dilation[0] + (high - 1) * stride[0] + 1, stride[0])
        columns = slice(kw * dilation[1], kw * dilation[1] + (wide - 1) * stride[1] + 1, stride[1])
        seen[kh, kw] = x[:, rows, columns]
    return seen


def conv(node, x, w, b=0.0):
    groups = node.ints[8]
    seen = taps(x, w.shape[:2], node.ints[:2], node.ints[2:6], node.ints[6:8])
    ys = [
        np.einsum("hwbijc,hwco->bijo", part, weight)
        for part, weight in zip(np.split(seen, groups, -1), np.split(w, groups, -1), strict=True)
    ]
    return np.concatenate(ys, -1) + b


def depthwise(node, x, w, b=0.0):
    seen = taps(x, w.shape[:2], node.ints[:2], node.ints[2:6], node.ints[6:8])
    return np.einsum("hwbijc,hwc->bijc", np.repeat(seen, w.shape[2] // x.shape[3], -1), w) + b


def maxpool(node, x):
    return taps(x, node.ints[:2], node.ints[2:4], node.ints[4:8], node.ints[8:] or (1, 1), fill=-np.inf).max((0, 1))


def avgpool(node, x):
    window = node.ints[:2], node.ints[2:4], node.ints[4:8], node.ints[9:] or (1, 1)
    counts = taps(np.ones_like(x), *window, fill=float(node.ints[8])).sum((0, 1))
    return taps(x, *window).sum((0, 1)) / counts


FORWARDS = {"conv": conv, "depthwise": depthwise, "maxpool": maxpool, "avgpool": avgpool}


def conv_plan(shape, kernel, out, *, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True):
    """dense -> conv -> mse: x has a gradient, too."""
    params = [Param("front", [shape[2], shape[2]]), Param("w", [*kernel, shape[2] // groups, out])]
    params += [Param("b", [out])] * bias
    ints = [*stride, *pads, *dilation, groups]
    nodes = [Node("dense", [0], [0]), Node("conv", [1], list(range(1, len(params))), ints)]
    return Plan(list(shape), nodes, params, "mse", 2, 2)


def depthwise_plan(shape, kernel, times, *, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), bias=True):
    out = shape[2] * times
    params = [Param("front", [shape[2], shape[2]]), Param("w", [*kernel, out])] + [Param("b", [out])] * bias
    nodes = [Node("dense", [0], [0]), Node("depthwise", [1], list(range(1, len(params))), [*stride, *pads, *dilation])]
    return Plan(list(shape), nodes, params, "mse", 2, 2)


def pool_plan(op, shape, kernel, *, stride=(1, 1), pads=(0, 0, 0, 0), include_pad=(), dilation=()):
    nodes = [Node("dense", [0], [0]), Node(op, [1], [], [*kernel, *stride, *pads, *include_pad, *dilation])]
    return Plan(list(shape), nodes, [Param("front", [shape[2], shape[2]])], "mse", 2, 2)
