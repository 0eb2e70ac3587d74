"""onnxruntime's own ops, which its optimizer writes in place of several others."""

from __future__ import annotations

import numpy as np
import onnx

from ..items import Const, Handler, Item, Readout, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .activation import swish
from .arithmetic import add, calculate
from .dense import dense, exchanged, gemm, product
from .norm import layer_norm, rms_norm
from .reduce import pointwise

PLAIN = "export without onnxruntime's optimizer"


def gelu(trace: Trace, node: onnx.NodeProto, x: Item, bias: Item | None = None) -> Value:
    """Gelu, BiasGelu, and FastGelu, which takes the approximation by tanh."""
    value = value_of(node, x if bias is None else add(trace, node, x, bias))
    tanh = node.op_type == "FastGelu"
    number = trace.append(node, "gelu", [value.number], trace.shapes[value.number], ints=[tanh])
    return Value(number, value.layout, node.output[0])


def quick_gelu(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    return swish(trace, node, x, default=1.702)


def fused_matmul(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Value:
    """alpha A B, either of them transposed."""
    given = attributes(node)
    alpha = given.get("alpha", 1.0)
    if given.get("transBatchA", 0) or given.get("transBatchB", 0):
        raise refuse(node, f"it moves the axis of samples: {PLAIN}")
    left = _turned(node, value_of(node, a), bool(given.get("transA", 0)))
    if isinstance(b, Const):
        weight = trace.weight(node, "weight", b, 1)
        if given.get("transB", 0):
            weight = weight.map(np.transpose)
        if not (alpha and np.isfinite(alpha)):
            raise refuse(node, f"alpha={alpha} leaves nothing to train: export with 1")
        return dense(trace, node, left, weight, alpha)
    made = product(trace, node, left, _turned(node, value_of(node, b), bool(given.get("transB", 0))))
    return made if alpha == 1 else calculate(trace, node, "mul", made, Const(np.array(alpha, np.float32)))


def _turned(node: onnx.NodeProto, value: Value, wanted: bool) -> Value:
    made = exchanged(value) if wanted else value
    if made is None:
        raise refuse(node, "it mixes samples: keep the first axis for them")
    return made


def fused_gemm(trace: Trace, node: onnx.NodeProto, a: Item, b: Item, c: Item | None = None) -> Value:
    value, given = gemm(trace, node, a, b, c), attributes(node)
    activation = given.get("activation", "")
    if activation not in ("", "Relu", "Sigmoid", "Tanh", "LeakyRelu"):
        raise refuse(node, f"its activation {activation} is not trained: {PLAIN}")
    if activation == "LeakyRelu":
        return pointwise(trace, node, "leaky_relu", value, given.get("activation_alpha", 0.01))
    return pointwise(trace, node, activation.lower(), value) if activation else value


def skip_layer_norm(trace: Trace, node: onnx.NodeProto, *inputs: Item | None) -> tuple[Item, ...]:
    """Of x, skip, scale, shift and bias: the norm of x + skip + bias, and as the fourth output the sum itself."""
    x, skip, scale, shift, bias = (list(inputs) + [None] * 5)[:5]
    summed = _summed(trace, node, x, skip, bias, slot=4)
    made = layer_norm(trace, node, summed, scale, shift, slots=(2, 3), epsilon=1e-12)
    return made, Readout(made), Readout(made), summed


def skip_rms_norm(trace: Trace, node: onnx.NodeProto, *inputs: Item | None) -> tuple[Item, ...]:
    """Of x, skip, scale and bias, likewise."""
    x, skip, scale, bias = (list(inputs) + [None] * 4)[:4]
    summed = _summed(trace, node, x, skip, bias, slot=3)
    made = rms_norm(trace, node, summed, scale, slot=2, epsilon=1e-12)
    return made, Readout(made), Readout(made), summed


def _summed(
    trace: Trace, node: onnx.NodeProto, x: Item | None, skip: Item | None, bias: Item | None, *, slot: int
) -> Value:
    if any(name and trace.readers.get(name) for name in node.output[1:3]):
        raise refuse(node, "its mean or deviation is read: use its first output alone")
    summed = calculate(trace, node, "add", value_of(node, x), value_of(node, skip))
    return summed if bias is None else calculate(trace, node, "add", summed, bias, slots=(0, slot))


MICROSOFT_OPS: dict[str, Handler] = {
    "com.microsoft.BiasGelu": gelu,
    "com.microsoft.FastGelu": gelu,
    "com.microsoft.FusedGemm": fused_gemm,
    "com.microsoft.FusedMatMul": fused_matmul,
    "com.microsoft.Gelu": gelu,
    "com.microsoft.QuickGelu": quick_gelu,
    "com.microsoft.SkipLayerNormalization": skip_layer_norm,
    "com.microsoft.SkipSimplifiedLayerNormalization": skip_rms_norm,
}
