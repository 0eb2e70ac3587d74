"""Every op of the plan, forward, in float64 NumPy: what the importer's plans are held against onnxruntime with.

Arrays have the samples' axis first and channels last. The arguments are those of the plan: `node.ints` and
`node.floats` in the order that each op's C file documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgefl.core.plan import Node, Plan

Forward = Callable[..., np.ndarray]
erf = np.vectorize(math.erf)


def windows(x: np.ndarray, kernel, strides, pads, dilations=(1, 1), fill: float = 0.0) -> np.ndarray:
    """(N, OH, OW, KH, KW, C) of x (N, H, W, C)."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, (1, 2))
    seen = seen[:, :: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]
    return np.moveaxis(seen, 3, -1)


def conv(node: Node, x: np.ndarray, w: np.ndarray, b: np.ndarray | float = 0.0) -> np.ndarray:
    *strides_pads, dil_h, dil_w, groups = node.ints
    seen = windows(x, w.shape[:2], strides_pads[:2], strides_pads[2:], (dil_h, dil_w))
    parts = zip(np.split(seen, groups, -1), np.split(w, groups, -1), strict=True)
    return np.concatenate([np.einsum("nhwklc,klco->nhwo", s, f) for s, f in parts], -1) + b


def conv_part(
    node: Node, x: np.ndarray, trained: np.ndarray, frozen: np.ndarray, b: np.ndarray | float = 0.0
) -> np.ndarray:
    """The whole weight, of a convolution or of a dense layer."""
    bits = [bool(node.ints[8 + i // 52] >> i % 52 & 1) for i in range(x.shape[-1])]
    whole = np.empty((*trained.shape[:-2], len(bits), trained.shape[-1]))
    whole[..., np.flatnonzero(bits), :] = trained
    whole[..., np.flatnonzero(~np.array(bits)), :] = frozen
    if whole.ndim == 2:
        return x @ whole + b
    return conv(Node("conv", node.inputs, ints=[*node.ints[:8], 1]), x, whole, b)


def conv_transpose(node: Node, x: np.ndarray, w: np.ndarray, b: np.ndarray | float = 0.0) -> np.ndarray:
    """Each pixel adds its multiple of a window, which is then cut to the output."""
    (high, wide, top, left, bottom, right, dil_h, dil_w), groups, size = node.ints[:8], node.ints[8], node.ints[9:]
    filters = np.concatenate([np.einsum("nhwc,klco->nhwklo", part, each) for part, each in zip(
        np.split(x, groups, -1), np.split(w.transpose(0, 1, 3, 2), groups, 2), strict=True)], -1)  # fmt: skip
    whole = np.zeros((len(x), size[0] + top + bottom, size[1] + left + right, filters.shape[-1]))
    for h, v, k, m in np.ndindex(*filters.shape[1:5]):
        whole[:, h * high + k * dil_h, v * wide + m * dil_w] += filters[:, h, v, k, m]
    return whole[:, top : top + size[0], left : left + size[1]] + b


def depthwise(node: Node, x: np.ndarray, w: np.ndarray, b: np.ndarray | float = 0.0) -> np.ndarray:
    seen = windows(x, w.shape[:2], node.ints[:2], node.ints[2:6], node.ints[6:])
    filters = w.reshape(*w.shape[:2], x.shape[-1], -1)
    return np.einsum("nhwklc,klcm->nhwcm", seen, filters).reshape(*seen.shape[:3], -1) + b


def lrn(node: Node, x: np.ndarray) -> np.ndarray:
    (size,), (alpha, beta, bias) = node.ints, node.floats
    before = (size - 1) // 2
    sums = [(x[..., max(0, c - before) : c + size - before] ** 2).sum(-1) for c in range(x.shape[-1])]
    return x / (bias + alpha / size * np.stack(sums, -1)) ** beta


def maxpool(node: Node, x: np.ndarray) -> np.ndarray:
    dilations = node.ints[8:] or (1, 1)
    return windows(x, node.ints[:2], node.ints[2:4], node.ints[4:8], dilations, fill=-np.inf).max((3, 4))


def avgpool(node: Node, x: np.ndarray) -> np.ndarray:
    dilations = node.ints[9:] or (1, 1)
    seen = windows(x, node.ints[:2], node.ints[2:4], node.ints[4:8], dilations).sum((3, 4))
    counted = np.ones_like(x)
    if node.ints[8]:
        return seen / (node.ints[0] * node.ints[1])
    return seen / windows(counted, node.ints[:2], node.ints[2:4], node.ints[4:8], dilations).sum((3, 4))


def arithmetic(compute: Forward) -> Forward:
    """Shapes broadcast per sample; a param has no samples' axis."""

    def forward(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if len(node.inputs) == 2:
            rank = max(a.ndim, b.ndim)
            a, b = (v.reshape(len(v), *(1,) * (rank - v.ndim), *v.shape[1:]) for v in (a, b))
            return compute(a, b)
        y = compute(b, a) if node.ints == [1] else compute(a, b)
        assert y.shape == a.shape, "a param broadcasts to the value, never the other way round"
        return y

    return forward


def softmax(node: Node, x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def batch_norm(node: Node, x, gamma, beta, mean, var) -> np.ndarray:
    return (x - mean) / np.sqrt(var + node.floats[0]) * gamma + beta


def layer_norm(node: Node, x, gamma, beta) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + node.floats[0]) * gamma + beta


def pad(node: Node, x: np.ndarray) -> np.ndarray:
    half = len(node.ints) // 2
    widths = [(0, 0), *zip(node.ints[:half], node.ints[half:], strict=True)]
    return np.pad(x, widths, constant_values=node.floats[0])


def slice_(node: Node, x: np.ndarray) -> np.ndarray:
    axis, start, size = node.ints
    assert start >= 0 and start + size <= x.shape[axis + 1]
    return np.take(x, range(start, start + size), axis + 1)


def resize(node: Node, x: np.ndarray) -> np.ndarray:
    """ONNX's Resize along one axis, places in float32."""
    axis, size, mode, coordinates, rounding = node.ints
    n, scale, at = x.shape[axis + 1], np.float32(node.floats[0]), np.arange(size, dtype=np.float32)
    half = (at + np.float32(0.5)) / scale
    place = [
        half - np.float32(0.5),
        at / scale,
        half - np.float32(0.5) if size > 1 else 0 * at,
        at * np.float32(n - 1) / np.float32(max(size - 1, 1)),
        half,
        np.float32(n / 2) * (1 - np.float32(size) / (scale * np.float32(n))) + half - np.float32(0.5),
    ][coordinates]
    if mode == 0:
        nearest = [np.ceil(place - np.float32(0.5)), np.trunc(place + np.copysign(np.float32(0.5), place))]
        place = [*nearest, np.floor(place), np.ceil(place)][rounding]
    place = np.clip(np.float64(place), 0, n - 1)
    low = np.floor(place).astype(int)
    share = (place - low).reshape(-1, *(1,) * (x.ndim - axis - 2))
    return x.take(low, axis + 1) * (1 - share) + x.take(np.minimum(low + 1, n - 1), axis + 1) * share


def extend(node: Node, x: np.ndarray) -> np.ndarray:
    axis, before, after, mode = node.ints
    widths = [(0, 0)] * x.ndim
    widths[axis + 1] = (before, after)
    return np.pad(x, widths, ("reflect", "edge", "wrap")[mode])


def stride(node: Node, x: np.ndarray) -> np.ndarray:
    axis, start, step, size = node.ints
    return x.take([start + at * step for at in range(size)], axis + 1)


def gelu(node: Node, x: np.ndarray) -> np.ndarray:
    if node.ints == [1]:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_step(node: Node, x, h, c, wx, wh, bx, bh) -> tuple[np.ndarray, np.ndarray]:
    i, o, f, g = np.split(x @ wx + h @ wh + bx + bh, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(node: Node, x, h, c, wx, wh, bx, bh) -> tuple[np.ndarray, np.ndarray]:
    zx, rx, nx = np.split(x @ wx + bx, 3, -1)
    zh, rh, nh = np.split(h @ wh + bh, 3, -1)
    z, r = sigmoid(zx + zh), sigmoid(rx + rh)
    if not node.ints[3]:
        size = h.shape[-1]
        nh = (r * h) @ wh[:, -size:] + bh[-size:]
        return (1 - z) * np.tanh(nx + nh) + z * h, c
    return (1 - z) * np.tanh(nx + r * nh) + z * h, c


def rnn_step(node: Node, x, h, c, wx, wh, bx, bh) -> tuple[np.ndarray, np.ndarray]:
    total = x @ wx + h @ wh + bx + bh
    return (np.maximum(total, 0) if node.ints[3] else np.tanh(total)), c


def recurrent(step: Callable) -> Forward:
    def forward(node: Node, x: np.ndarray, *given: np.ndarray) -> np.ndarray:
        params, starts = given[:4], given[4:]
        hidden, direction, output = node.ints[:3]
        sequences, lasts = [], []
        for at, backward in enumerate({0: [False], 1: [True], 2: [False, True]}[direction]):
            zero = np.zeros((len(x), hidden))
            h, c = ([zero + start[at] for start in starts] + [zero, zero])[:2]
            outputs = []
            for t in range(x.shape[1])[:: -1 if backward else 1]:
                h, c = step(node, x[:, t], h, c, *(param[at] for param in params))
                outputs.append(h)
            sequences.append(np.stack(outputs[:: -1 if backward else 1], 1))
            lasts.append(h)
        return np.concatenate(lasts if output else sequences, -1)

    return forward


def mask(node: Node, x: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    if keep is None:
        upper, k = node.ints
        keep = np.triu(np.ones(x.shape[-2:]), k) if upper else np.tril(np.ones(x.shape[-2:]), k)
    return np.where(keep != 0, x, node.floats[0])


def keep(node: Node, x: np.ndarray, condition: np.ndarray) -> np.ndarray:
    lead = (1,) * (x.ndim - condition.ndim)
    return np.where(condition.reshape(len(x), *lead, *condition.shape[1:]) > 0, x, node.floats[0])


def group_norm(node: Node, x: np.ndarray, gamma=1.0, beta=0.0) -> np.ndarray:
    groups, inner = node.ints
    seen = x.reshape(len(x), -1, groups, inner)
    centred = seen - seen.mean((1, 3), keepdims=True)
    unit = centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + node.floats[0])
    gamma, beta = (np.broadcast_to(np.reshape(w, (-1, inner if np.size(w) > groups else 1)), (groups, inner))
                   for w in (gamma, beta))  # fmt: skip
    return (unit * gamma + beta).reshape(x.shape)


def axes(node: Node) -> tuple[int, ...]:
    return tuple(axis + 1 for axis in node.ints)


def log_sum_exp(node: Node, x: np.ndarray) -> np.ndarray:
    peak = x.max(axes(node), keepdims=True)
    return np.log(np.exp(x - peak).sum(axes(node))) + peak.reshape(x.max(axes(node)).shape)


FORWARD: dict[str, Forward] = {
    "abs": lambda node, x: np.abs(x),
    "add": arithmetic(np.add),
    "avgpool": avgpool,
    "batch_norm": batch_norm,
    "clip": lambda node, x: np.clip(x, *node.floats),
    "concat": lambda node, *xs: np.concatenate(xs, node.ints[0] + 1),
    "conv": conv,
    "conv_part": conv_part,
    "conv_transpose": conv_transpose,
    "cos": lambda node, x: np.cos(x),
    "dense": lambda node, x, w, b=0.0: x @ (w.T if node.ints else w) + b,
    "depthwise": depthwise,
    "div": arithmetic(np.divide),
    "dropout": lambda node, x: x,
    "elu": lambda node, x: np.where(x > 0, x, node.floats[0] * np.expm1(x)),
    "embedding": lambda node, x, w: w[x.astype(int)],
    "erf": lambda node, x: erf(x),
    "exp": lambda node, x: np.exp(x),
    "expand": lambda node, x: np.broadcast_to(x, (len(x), *node.ints)),
    "extend": extend,
    "flatten": lambda node, x: x.reshape(len(x), -1),
    "gelu": gelu,
    "group_norm": group_norm,
    "gru": recurrent(gru_step),
    "hard_sigmoid": lambda node, x: np.clip(node.floats[0] * x + node.floats[1], 0, 1),
    "hard_swish": lambda node, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "keep": keep,
    "layer_norm": layer_norm,
    "leaky_relu": lambda node, x: np.where(x > 0, x, node.floats[0] * x),
    "log": lambda node, x: np.log(x),
    "log_softmax": lambda node, x: np.log(softmax(node, x)),
    "log_sum_exp": log_sum_exp,
    "lrn": lrn,
    "lstm": recurrent(lstm_step),
    "mask": mask,
    "matmul": lambda node, a, b: a @ (np.swapaxes(b, -1, -2) if node.ints[0] else b),
    "max": arithmetic(np.maximum),
    "maxpool": maxpool,
    "mean": lambda node, x: x.mean(tuple(axis + 1 for axis in node.ints)),
    "min": arithmetic(np.minimum),
    "mish": lambda node, x: x * np.tanh(np.logaddexp(0, x)),
    "mul": arithmetic(np.multiply),
    "norm": lambda node, x: np.sqrt((x**2).sum(axes(node))),
    "pad": pad,
    "pow": lambda node, x: x ** node.floats[0],
    "reduce_max": lambda node, x: x.max(axes(node)),
    "reduce_min": lambda node, x: x.min(axes(node)),
    "relu": lambda node, x: np.maximum(x, 0),
    "repeat": lambda node, x, w: np.broadcast_to(w, (len(x), *w.shape)),
    "reshape": lambda node, x: x.reshape(len(x), *node.ints),
    "resize": resize,
    "rnn": recurrent(rnn_step),
    "select": lambda node, t, yes, no: np.where(t > 0, yes, no),
    "shrink": lambda node, x: np.where(np.abs(x) <= node.floats[0], 0, x - np.sign(x) * node.floats[1]),
    "sigmoid": lambda node, x: sigmoid(x),
    "sin": lambda node, x: np.sin(x),
    "slice": slice_,
    "softmax": softmax,
    "softplus": lambda node, x: np.logaddexp(0, x),
    "sqrt": lambda node, x: np.sqrt(x),
    "step": lambda node, x: np.where(x > 0, *node.floats),
    "stride": stride,
    "sub": arithmetic(np.subtract),
    "tanh": lambda node, x: np.tanh(x),
    "threshold": lambda node, x: np.where(x > node.floats[0], x, node.floats[1]),
    "transpose": lambda node, x: x.transpose(0, *(axis + 1 for axis in node.ints)),
}


def values(plan: Plan, params: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    """Every value of the plan for x (n, *input_shape)."""
    ends = np.cumsum([param.size for param in plan.params])
    split = np.split(np.float64(params), ends[:-1])
    tensors = [part.reshape(param.shape) for part, param in zip(split, plan.params, strict=True)]
    found = [np.float64(x)]
    for node in plan.nodes:
        inputs = [found[number] for number in node.inputs]
        found.append(FORWARD[node.op](node, *inputs, *(tensors[param] for param in node.params)))
    return found


def predict(plan: Plan, params: np.ndarray, x: np.ndarray) -> np.ndarray:
    return values(plan, params, x)[plan.output]
