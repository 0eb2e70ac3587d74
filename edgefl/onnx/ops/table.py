"""What each ONNX op becomes in the plan: the table, and the ops that need no file of their own.

A function receives the trace, the node and the node's inputs (None for one that is left out). It returns the node's
outputs: one item or a tuple of items. It refuses everything that the plan's ops can't compute exactly.

To add an op: write its function and give it a line in `OPS`. scikit-learn's own ops are in ops/ml.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import innermost
from ..folds import cast_to
from ..items import Const, Item, Readout, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from . import shape as shapes
from .arithmetic import add, arithmetic, negative, power, total
from .conv import conv, global_average, global_max, pool
from .dense import gemm, matmul
from .ml import ML_OPS
from .norm import batch_norm, layer_norm
from .recurrent import recurrent

LARGEST = float(np.finfo(np.float32).max)
Handler = Callable[..., Item | tuple[Item, ...]]


def _pointwise(op: str, **defaults: float) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    """An op that maps every number by itself. `defaults` are its attributes, in the plan's order."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value, given = value_of(node, x), attributes(node)
        floats = [given.get(name, default) for name, default in defaults.items()]
        number = trace.append(node, op, [value.number], trace.shapes[value.number], floats=floats)
        return replace(value, number=number, tensor=node.output[0])

    return handler


def _softmax(op: str) -> Callable[[Trace, onnx.NodeProto, Item], Value]:
    """Along one axis; before opset 13 along that axis and all after it."""

    def handler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
        value = value_of(node, x)
        rank, old = len(value.layout.axes), trace.opset < 13
        axis = attributes(node).get("axis", 1 if old else -1)
        if not -rank <= axis < rank:
            raise refuse(node, f"axis {axis} of {rank} axes does not exist: check the export")
        axes = range(axis % rank, rank if old else axis % rank + 1)
        value, _, _ = innermost(trace, node, value, axes)
        number = trace.append(node, op, [value.number], trace.shapes[value.number])
        return replace(value, number=number, tensor=node.output[0])

    return handler


def clip(trace: Trace, node: onnx.NodeProto, x: Item, *limits: Item | None) -> Value:
    """Limits are inputs since opset 11, attributes before; either may be left out."""
    value, given = value_of(node, x), attributes(node)
    floats = [given.get("min", -LARGEST), given.get("max", LARGEST)]
    for at, limit in enumerate(limits):
        if limit is not None:
            if not isinstance(limit, Const) or limit.array.size != 1:
                raise refuse(node, "its limits are no constants: use fixed ones")
            floats[at] = float(np.clip(limit.array.ravel()[0], -LARGEST, LARGEST))
    number = trace.append(node, "clip", [value.number], trace.shapes[value.number], floats=floats)
    return replace(value, number=number, tensor=node.output[0])


def gelu(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    value, how = value_of(node, x), attributes(node).get("approximate", "none")
    if how not in ("none", "tanh"):
        raise refuse(node, f"approximate={how} is not known: use 'none' or 'tanh'")
    number = trace.append(node, "gelu", [value.number], trace.shapes[value.number], ints=[how == "tanh"])
    return replace(value, number=number, tensor=node.output[0])


def dropout(trace: Trace, node: onnx.NodeProto, x: Item, ratio: Item | None = None, mode: Item | None = None) -> Item:
    """Active in training only; inference passes its input through."""
    value = value_of(node, x)
    share = float(ratio.array.ravel()[0]) if isinstance(ratio, Const) else attributes(node).get("ratio", 0.5)
    if not 0 <= share < 1 or (ratio is not None and not isinstance(ratio, Const)):
        raise refuse(node, f"ratio {share:g} is not trained: use a constant of 0 or more, below 1")
    if mode is not None and (not isinstance(mode, Const) or mode.array.any()):
        raise refuse(node, "it was exported in training mode, so that no run gives the same: export with mode false")
    if any(name and trace.readers.get(name) for name in node.output[1:]):
        raise refuse(node, "its mask is read: use its first output alone")
    if share == 0:
        return replace(value, tensor=node.output[0])
    number = trace.append(node, "dropout", [value.number], trace.shapes[value.number], floats=[share])
    return replace(value, number=number, tensor=node.output[0])


def identity(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    return x


def cast(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    if not isinstance(x, Value):
        return x
    to = attributes(node)["to"]
    if x.tokens and to in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        return x
    if to != onnx.TensorProto.FLOAT:
        raise refuse(node, "casts activations to another type: EdgeFL trains float32, export the model in float32")
    return replace(x, tokens=False)


def cast_like(trace: Trace, node: onnx.NodeProto, x: Item, like: Item) -> Item:
    """PyTorch's newer exporter, unless it optimizes, casts each constant to the type of the activations beside it."""
    if isinstance(x, Const) and isinstance(like, Value) and not like.tokens:
        return cast_to(x, np.dtype(np.float32))
    if isinstance(x, Value) and isinstance(like, Value) and x.tokens == like.tokens:
        return x
    raise refuse(node, "casts between whole numbers and activations: export the model in float32")


def readout(trace: Trace, node: onnx.NodeProto, *inputs: Item) -> Readout:
    """An output for people: the label, or the classes by name."""
    found = next((item for item in inputs if isinstance(item, Value | Readout)), None)
    if found is None:
        raise refuse(node, "it reads no prediction: leave it out of the export")
    return Readout(found if isinstance(found, Value) else found.value)


OPS: dict[str, Handler] = {
    "Abs": _pointwise("abs"),
    "Add": add,
    "ArgMax": readout,
    "AveragePool": pool("avgpool"),
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "CastLike": cast_like,
    "Clip": clip,
    "Concat": shapes.concat,
    "Conv": conv,
    "Div": arithmetic("div"),
    "Dropout": dropout,
    "Elu": _pointwise("elu", alpha=1.0),
    "Erf": _pointwise("erf"),
    "Exp": _pointwise("exp"),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "GRU": recurrent("gru"),
    "Gather": shapes.gather,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "HardSigmoid": _pointwise("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": _pointwise("hard_swish"),
    "Identity": identity,
    "LSTM": recurrent("lstm"),
    "LayerNormalization": layer_norm,
    "LeakyRelu": _pointwise("leaky_relu", alpha=0.01),
    "Log": _pointwise("log"),
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": matmul,
    "MaxPool": pool("maxpool"),
    "Mul": arithmetic("mul"),
    "Neg": negative,
    "Pad": shapes.pad,
    "Pow": power,
    "Reciprocal": power,
    "ReduceMean": shapes.mean,
    "ReduceSum": shapes.total,
    "Relu": _pointwise("relu"),
    "Reshape": shapes.reshape,
    "Shape": shapes.shape,
    "Sigmoid": _pointwise("sigmoid"),
    "Slice": shapes.slice_,
    "Softmax": _softmax("softmax"),
    "Softplus": _pointwise("softplus"),
    "Split": shapes.split,
    "Sqrt": _pointwise("sqrt"),
    "Squeeze": shapes.squeeze,
    "Sub": arithmetic("sub"),
    "Sum": total,
    "Tanh": _pointwise("tanh"),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
    "ai.onnx.ml.ArrayFeatureExtractor": readout,
    "ai.onnx.ml.Binarizer": readout,
    "ai.onnx.ml.ZipMap": readout,
    **ML_OPS,
}

FLOAT_MODEL = "train the float32 model and quantize the result"
HELP = {
    "ConvTranspose": "upsampling is not trained, use a model without it",
    "DequantizeLinear": FLOAT_MODEL,
    "InstanceNormalization": "use BatchNormalization or LayerNormalization",
    "PRelu": "use LeakyRelu, whose slope is fixed",
    "QLinearConv": FLOAT_MODEL,
    "QLinearMatMul": FLOAT_MODEL,
    "QuantizeLinear": FLOAT_MODEL,
    "RNN": "use LSTM or GRU",
    "onnx.brevitas.BipolarQuant": FLOAT_MODEL,
    "onnx.brevitas.Quant": FLOAT_MODEL,
}
