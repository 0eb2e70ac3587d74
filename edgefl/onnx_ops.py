"""What each ONNX op becomes in the plan, one function an op.

A function takes the trace, the node and the node's inputs (None for one left out), and returns what the node
makes: one item or a tuple of them. It refuses whatever the plan's ops can't compute exactly.

To add an op: write its function and give it a line in `OPS`. scikit-learn's own ops are in onnx_ml_ops.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from .onnx_ml_ops import ML_OPS
from .onnx_trace import Complement, Const, Item, Readout, Trace, Value, Weight, attributes, refuse, value_of

ARITHMETIC = "elementwise arithmetic is not trained yet: do it to the data, before it reaches the model"


def _pointwise(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    """An activation that maps every number by itself."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value = value_of(node, x)
        return trace.emit(node, op, value, value.shape)

    return handler


def _over_last_axis(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value = value_of(node, x)
        axis = attributes(node).get("axis", 1 if trace.opset < 13 else -1)
        if axis not in (-1, len(value.shape)):
            raise refuse(node, f"axis {axis} is not the last: move the classes to the last axis")
        return trace.emit(node, op, value, value.shape)

    return handler


def _reshaped(trace: Trace, node: onnx.NodeProto, value: Value, shape: tuple[int, ...]) -> Value:
    """`value` with per-sample `shape`: itself, flattened, or refused."""
    if shape == value.shape:
        return value
    if shape == (math.prod(value.shape),):
        return trace.emit(node, "flatten", value, shape)
    raise refuse(node, f"reshapes a sample from {value.shape} to {shape}: only flattening is trained yet")


def _bias(node: onnx.NodeProto, weight: Weight, outputs: int) -> Weight:
    """The bias as (O,); refuses one number shared by all outputs, which would have to stay tied."""
    if weight.array.size != outputs or any(size != 1 for size in weight.array.shape[:-1]):
        raise refuse(node, f"its bias has shape {weight.array.shape}, not ({outputs},): give each output its own")
    return weight.map(np.ravel)


def gemm(trace: Trace, node: onnx.NodeProto, a: Item, b: Item, c: Item | None = None) -> Value:
    """Y = alpha A B' + beta C; alpha and beta go into the weights, and out of them again on the way back."""
    given = attributes(node)
    value = value_of(node, a)
    if given.get("transA", 0) or len(value.shape) != 1:
        raise refuse(node, "it mixes samples: give it rows of features (transA=0)")
    alpha, beta = given.get("alpha", 1.0), given.get("beta", 1.0)
    if not (alpha and beta and np.isfinite([alpha, beta]).all()):
        raise refuse(node, f"alpha={alpha}, beta={beta} leave nothing to train: export with 1")
    weight = trace.weight(node, "weight", b, 1)
    if weight.array.ndim == 2 and given.get("transB", 0):
        weight = weight.map(np.transpose)
    value = _dense(trace, node, value, weight, alpha)
    if c is not None:
        bias = _bias(node, trace.weight(node, "bias", c, 2), value.shape[-1])
        trace.drafts[-1].params.append(trace.param(node, "bias", bias, beta))
    return value


def matmul(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Value:
    if isinstance(a, Const):
        raise refuse(node, "the constant is on the left: write it as MatMul(x, W)")
    return _dense(trace, node, value_of(node, a), trace.weight(node, "weight", b, 1), 1.0)


def _dense(trace: Trace, node: onnx.NodeProto, value: Value, weight: Weight, scale: float) -> Value:
    if weight.array.ndim != 2 or weight.array.shape[0] != value.shape[-1]:
        raise refuse(node, f"weight {weight.array.shape} does not fit {value.shape[-1]} features: check the export")
    shape = (*value.shape[:-1], weight.array.shape[1])
    return trace.emit(node, "dense", value, shape, [trace.param(node, "weight", weight, scale)])


def add(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Value:
    """The bias of the MatMul before it, on either side; nothing else yet."""
    slot = 0 if isinstance(a, Const) else 1
    value, bias = value_of(node, (a, b)[1 - slot]), (a, b)[slot]
    draft = trace.drafts[value.number - 1] if value.number else None
    # A sum that others read before the bias is added, or that has its bias already, is no dense layer's end.
    own = value.tensor == node.input[1 - slot] and trace.readers[value.tensor] == 1
    if draft is None or draft.op != "dense" or len(draft.params) != 1 or not own or not isinstance(bias, Const):
        raise refuse(node, ARITHMETIC)
    if bias.array.ndim > len(value.shape) + 1:
        raise refuse(node, f"its bias has shape {bias.array.shape}: give it one axis")
    weight = _bias(node, trace.weight(node, "bias", bias, slot), value.shape[-1])
    draft.params.append(trace.param(node, "bias", weight))
    draft.value = Value(value.number, value.shape, node.output[0])
    return draft.value


def sub(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Complement:
    """1 - p, the first column of a two-class readout; nothing else yet."""
    if not (isinstance(a, Const) and isinstance(b, Value) and a.array.size == 1 and a.array.ravel()[0] == 1):
        raise refuse(node, ARITHMETIC)
    return Complement(b)


def arithmetic(trace: Trace, node: onnx.NodeProto, *inputs: Item) -> Item:
    raise refuse(node, ARITHMETIC)


def concat(trace: Trace, node: onnx.NodeProto, *parts: Item) -> Readout:
    """[1 - p, p], a two-class readout; nothing else yet."""
    match parts:
        case (Complement(first), Value() as second) if first == second and second.shape == (1,):
            if attributes(node)["axis"] in (1, -1):
                return Readout(second)
    raise refuse(node, "concatenating activations is not trained yet: use a net with one path")


def readout(trace: Trace, node: onnx.NodeProto, *inputs: Item) -> Readout:
    """Anything made of a value for the reader: its label, its classes by name."""
    found = next((item for item in inputs if isinstance(item, Value | Readout)), None)
    if found is None:
        raise refuse(node, "it reads no prediction: leave it out of the export")
    return Readout(found if isinstance(found, Value) else found.value)


def identity(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    return x


def cast(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    if isinstance(x, Value) and attributes(node)["to"] != onnx.TensorProto.FLOAT:
        raise refuse(node, "casts activations to another type: EdgeFL trains float32, export the model in float32")
    return x


def dropout(trace: Trace, node: onnx.NodeProto, x: Item, ratio: Item | None = None, mode: Item | None = None) -> Item:
    share = float(ratio.array) if isinstance(ratio, Const) else attributes(node).get("ratio", 0.5)
    if share != 0:
        raise refuse(node, f"dropout (ratio {share:g}) is not trained yet: export with ratio 0 or in eval mode")
    return x


def flatten(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, axis = value_of(node, x), attributes(node).get("axis", 1)
    keeps_samples = axis == 1 or axis == -len(value.shape) or (axis == 0 and trace.batch == 1)
    if not keeps_samples:
        raise refuse(node, f"axis {axis} mixes samples: use axis=1")
    return _reshaped(trace, node, value, (math.prod(value.shape),))


def reshape(trace: Trace, node: onnx.NodeProto, x: Item, target: Item | None = None) -> Item:
    if isinstance(x, Readout):
        return x
    value = value_of(node, x)
    if not isinstance(target, Const):
        raise refuse(node, "its shape is computed from the input: export with a fixed shape")
    first, *rest = target.array.ravel().tolist()
    if not attributes(node).get("allowzero", 0):
        rest = [value.shape[axis] if size == 0 else size for axis, size in enumerate(rest)]
    if first not in (None, -1, 0, trace.batch) or None in rest:
        raise refuse(node, f"shape {target.array.tolist()} mixes samples: keep the first axis for samples (-1)")
    if -1 in rest:
        rest[rest.index(-1)] = math.prod(value.shape) // -math.prod(rest)
    if math.prod(rest) != math.prod(value.shape):
        raise refuse(node, f"shape {target.array.tolist()} does not fit samples of {value.shape}: check the export")
    return _reshaped(trace, node, value, tuple(rest))


def transpose(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value = value_of(node, x)
    order = list(range(len(value.shape) + 1))
    if attributes(node).get("perm", order[::-1]) != order:
        raise refuse(node, "transposing activations is not trained yet: export the model without it")
    return value


def shape(trace: Trace, node: onnx.NodeProto, x: Item) -> Const:
    """The shape as a vector in which None stands for the number of samples."""
    whole, bounds = (None, *value_of(node, x).shape), attributes(node)
    return Const(np.array(whole[bounds.get("start", 0) : bounds.get("end")], object))


OPS: dict[str, Callable[..., Item | tuple[Item, ...]]] = {
    "Add": add,
    "ArgMax": readout,
    "Cast": cast,
    "Concat": concat,
    "Div": arithmetic,
    "Dropout": dropout,
    "Flatten": flatten,
    "Gemm": gemm,
    "Identity": identity,
    "LogSoftmax": _over_last_axis("log_softmax"),
    "MatMul": matmul,
    "Mul": arithmetic,
    "Relu": _pointwise("relu"),
    "Reshape": reshape,
    "Shape": shape,
    "Sigmoid": _pointwise("sigmoid"),
    "Softmax": _over_last_axis("softmax"),
    "Sub": sub,
    "Tanh": _pointwise("tanh"),
    "Transpose": transpose,
    "ai.onnx.ml.ArrayFeatureExtractor": readout,
    "ai.onnx.ml.Binarizer": readout,
    "ai.onnx.ml.ZipMap": readout,
    **ML_OPS,
}
