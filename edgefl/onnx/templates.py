"""Models to start from, as ONNX files (`edgefl new --model cnn1d`), written with onnx alone.

A template takes the shape of an example and the number of outputs from the data. Weights are He et al.'s (2015) normal,
of a GRU uniform within 1 / sqrt(hidden); biases are zero. Outputs are logits, or the numbers to predict.

To add a template, write its function and add it to TEMPLATES. Needs onnx; not for devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import UsageError, nearest
from .specs import IR_VERSION, OPSET

CHANNELS = (1, 3, 4)  # of an image
HIDDEN = 32


class Examples(NamedTuple):
    """What a template is made for. `shape` of an example; `outputs`: classes, or numbers to predict; `tokens`: how many
    different ones x has, 0 if x is numbers; `steps`: each step of a sequence has a target of its own."""

    shape: tuple[int, ...]
    outputs: int
    tokens: int = 0
    steps: bool = False


class Net:
    """A graph in the making: each method appends a node behind the last one."""

    def __init__(self, shape: Sequence[int], tokens: bool, seed: int) -> None:
        self.shape, self.rng = tuple(shape), np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[onnx.TensorProto] = []
        self._value = "input"
        kind = TensorProto.INT64 if tokens else TensorProto.FLOAT
        self._input = helper.make_tensor_value_info("input", kind, ["batch", *shape])

    def add(self, op: str, *more: str, outputs: Sequence[str] = (), **attributes: Any) -> Net:
        """A node that reads the last value and `more`; the first of `outputs` that has a name is the next value."""
        name = f"{op.lower()}{len(self._nodes)}"
        made = list(outputs) or [f"{name}.out"]
        self._nodes.append(helper.make_node(op, [self._value, *more], made, name, **attributes))
        self._value = next(output for output in made if output)
        return self

    def look_up(self, table: str) -> Net:
        """The rows of a table by the tokens that the last value has."""
        tokens, self._value = self._value, table
        return self.add("Gather", tokens, axis=0)

    def store(self, name: str, values: np.ndarray) -> str:
        self._stored.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, name: str, shape: Sequence[int], fan_in: int) -> str:
        return self.store(name, self.rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32))

    def zeros(self, name: str, size: int) -> str:
        return self.store(name, np.zeros(size, np.float32))

    def gemm(self, name: str, inputs: int, outputs: int) -> Net:
        weight = self.normal(f"{name}.weight", (outputs, inputs), inputs)
        return self.add("Gemm", weight, self.zeros(f"{name}.bias", outputs), transB=1)

    def conv(self, name: str, inputs: int, outputs: int, kernel: Sequence[int]) -> Net:
        weight = self.normal(f"{name}.weight", (outputs, inputs, *kernel), inputs * prod(kernel))
        pads = [size // 2 for size in kernel] * 2
        return self.add("Conv", weight, self.zeros(f"{name}.bias", outputs), kernel_shape=list(kernel), pads=pads)

    def reshape(self, *shape: int) -> Net:
        """To (samples, *shape)."""
        return self.add("Reshape", self.store(f"shape{len(self._nodes)}", np.array([-1, *shape], np.int64)))

    def done(self, name: str, shape: Sequence[int]) -> onnx.ModelProto:
        """The model, whose output has this shape a sample."""
        self._nodes[-1].output[0] = "output"
        output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *shape])
        graph = helper.make_graph(self._nodes, name, [self._input], [output], self._stored)
        model = helper.make_model(graph, producer_name="edgefl", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        return model


def linear(examples: Examples, seed: int) -> onnx.ModelProto:
    """One layer: linear or logistic regression."""
    return _dense("linear", examples, [], seed)


def mlp(examples: Examples, seed: int) -> onnx.ModelProto:
    """Two hidden layers of 64 and 32."""
    return _dense("mlp", examples, [64, 32], seed)


def cnn(examples: Examples, seed: int) -> onnx.ModelProto:
    """Two convolutions of 3x3 on an image, each halved by a pool, and one layer."""
    _numbers("cnn", examples)
    shape = examples.shape
    side = isqrt(prod(shape))
    if (len(shape) == 1 and side * side != shape[0]) or len(shape) > 3:
        raise UsageError(f"a cnn takes images, and an example has shape {shape}: choose mlp or cnn1d")
    last = len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS
    channels, height, width = {1: (1, side, side), 2: (1, *shape), 3: shape}[len(shape)]
    net = Net(shape if last else (channels, height, width), False, seed)
    if last:
        height, width, channels = shape
        net.add("Transpose", perm=[0, 3, 1, 2])
    for number, filters in enumerate((16, 32), 1):
        net.conv(f"conv{number}", channels, filters, (3, 3)).add("Relu")
        channels = filters
        if min(height, width) >= 4:
            net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            height, width = height // 2, width // 2
    net.add("Flatten", axis=1).gemm("fc", channels * height * width, examples.outputs)
    return net.done("cnn", [examples.outputs])


def cnn1d(examples: Examples, seed: int) -> onnx.ModelProto:
    """Two convolutions of 5 along time, a pool, the mean over time, and one layer."""
    _numbers("cnn1d", examples)
    shape = examples.shape
    if len(shape) > 2:
        raise UsageError(f"a cnn1d takes series, and an example has shape {shape}: choose cnn or mlp")
    shape = shape if len(shape) == 2 else (1, *shape)
    last = shape[0] > shape[1]  # (time, channels): the longer axis is time
    net = Net(shape, False, seed)
    if last:
        net.add("Transpose", perm=[0, 2, 1])
    channels, time = (shape[1], shape[0]) if last else shape
    net.conv("conv1", channels, 32, (5,)).add("Relu")
    if time >= 4:
        net.add("MaxPool", kernel_shape=[2], strides=[2])
    net.conv("conv2", 32, 64, (5,)).add("Relu").add("GlobalAveragePool").add("Flatten", axis=1)
    return net.gemm("fc", 64, examples.outputs).done("cnn1d", [examples.outputs])


def gru(examples: Examples, seed: int) -> onnx.ModelProto:
    """A GRU of 32 over the steps of a series, or over tokens, and one layer on its last step, or on each."""
    shape, inputs = examples.shape, HIDDEN // 2
    if examples.tokens:
        net = Net(shape, True, seed)
        table = net.rng.normal(0, 1, (examples.tokens, inputs)).astype(np.float32)
        net.look_up(net.store("embedding.weight", table))
    else:
        if len(shape) > 2:
            raise UsageError(f"a gru takes series, and an example has shape {shape}: choose cnn or mlp")
        shape = shape if len(shape) == 2 else (*shape, 1)
        inputs = shape[1]
        net = Net(shape, False, seed)
    net.add("Transpose", perm=[1, 0, 2])

    def uniform(name: str, *sizes: int) -> str:
        return net.store(name, net.rng.uniform(-1, 1, (1, *sizes)).astype(np.float32) / np.float32(np.sqrt(HIDDEN)))

    stored = uniform("gru.weight", 3 * HIDDEN, inputs), uniform("gru.recurrence", 3 * HIDDEN, HIDDEN)
    bias = net.store("gru.bias", np.zeros((1, 6 * HIDDEN), np.float32))
    outputs = ["gru.all"] if examples.steps else ["", "gru.last"]
    net.add("GRU", *stored, bias, outputs=outputs, hidden_size=HIDDEN, linear_before_reset=1)
    if not examples.steps:
        net.add("Squeeze", net.store("axis", np.array([0], np.int64)))
        return net.gemm("fc", HIDDEN, examples.outputs).done("gru", [examples.outputs])
    net.add("Transpose", perm=[2, 0, 1, 3]).reshape(shape[0], HIDDEN)
    net.add("MatMul", net.normal("fc.weight", (HIDDEN, examples.outputs), HIDDEN))
    net.add("Add", net.zeros("fc.bias", examples.outputs))
    return net.done("gru", [shape[0], examples.outputs])


def autoencoder(examples: Examples, seed: int) -> onnx.ModelProto:
    """Four layers that squeeze an example to a quarter of its numbers, and restore it: for anomalies."""
    _numbers("autoencoder", examples)
    size = prod(examples.shape)
    wide, narrow = min(64, max(8, 2 * size)), min(16, max(2, size // 4))
    net = Net(examples.shape, False, seed)
    if len(examples.shape) > 1:
        net.add("Flatten", axis=1)
    net.gemm("encoder1", size, wide).add("Relu").gemm("encoder2", wide, narrow).add("Tanh")
    net.gemm("decoder1", narrow, wide).add("Relu").gemm("decoder2", wide, size)
    if len(examples.shape) > 1:
        net.reshape(*examples.shape)
    return net.done("autoencoder", examples.shape)


def _dense(name: str, examples: Examples, hidden: list[int], seed: int) -> onnx.ModelProto:
    _numbers(name, examples)
    net = Net(examples.shape, False, seed)
    if len(examples.shape) > 1:
        net.add("Flatten", axis=1)
    sizes = [prod(examples.shape), *hidden, examples.outputs]
    for number in range(1, len(sizes)):
        net.gemm(f"fc{number}", sizes[number - 1], sizes[number])
        if number < len(sizes) - 1:
            net.add("Relu")
    return net.done(name, [examples.outputs])


def _numbers(name: str, examples: Examples) -> None:
    if examples.tokens:
        raise UsageError(f"a {name} takes numbers, and the data are tokens: choose gru, or bring a model of your own")
    if examples.steps:
        raise UsageError(f"a {name} has one target an example, and the data have one a step: choose gru")


TEMPLATES: dict[str, Callable[[Examples, int], onnx.ModelProto]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "cnn1d": cnn1d,
    "gru": gru,
    "autoencoder": autoencoder,
}


def template(name: str, examples: Examples, seed: int = 0) -> onnx.ModelProto:
    """The template of that name for such examples; UsageError if no template has it, or it does not fit."""
    if name not in TEMPLATES:
        raise UsageError(f"there is no template {name!r}: {nearest(name, TEMPLATES)}")
    return TEMPLATES[name](examples, seed)


def fitting(examples: Examples, restores: bool) -> str:
    """The template for such examples; `restores`: their targets are the examples themselves."""
    if restores:
        return "autoencoder"
    if examples.tokens or examples.steps:
        return "gru"
    if len(examples.shape) == 2:
        return "cnn1d" if min(examples.shape) < 16 else "cnn"
    return "cnn" if len(examples.shape) == 3 else "mlp"
