"""The models that are timed and compared, as ONNX files made here: what an exporter would write, channels first.

`MODELS` maps a name to its maker, batch and kind of data. Initializers carry the names that the torch twins in
torch_models.py have, so that both start from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


@dataclass
class Graph:
    """An ONNX graph in the making. Values are named after the layer that makes them."""

    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def weight(self, name: str, shape: tuple[int, ...], fan_in: int) -> str:
        """Uniform in ±1/sqrt(fan_in), torch's default; biases alike."""
        bound = 1 / np.sqrt(fan_in)
        return self.constant(name, self._rng.uniform(-bound, bound, shape).astype(np.float32))

    def constant(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, name: str, outputs: list[str] | None = None, **attributes: object) -> str:
        outputs = outputs or [f"{name}.out"]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name, **attributes))
        return next(filter(None, outputs))

    def dense(self, x: str, name: str, fan_in: int, fan_out: int) -> str:
        w = self.weight(f"{name}.weight", (fan_out, fan_in), fan_in)
        return self.node("Gemm", x, w, self.weight(f"{name}.bias", (fan_out,), fan_in), name=name, transB=1)

    def conv(
        self, x: str, name: str, c_in: int, c_out: int, kernel: tuple[int, ...], *, strides: tuple[int, ...] = (),
        pads: tuple[int, ...] = (), groups: int = 1, bias: bool = True,
    ) -> str:  # fmt: skip
        fan_in = c_in // groups * int(np.prod(kernel))
        inputs = [x, self.weight(f"{name}.weight", (c_out, c_in // groups, *kernel), fan_in)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", (c_out,), fan_in))
        geometry = {"strides": strides or (1,) * len(kernel), "pads": pads or (0,) * (2 * len(kernel))}
        return self.node("Conv", *inputs, name=name, kernel_shape=kernel, group=groups, **geometry)

    def norm(self, x: str, name: str, channels: int) -> str:
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        gamma, beta = self.constant(f"{name}.weight", ones), self.constant(f"{name}.bias", zeros)
        mean, var = self.constant(f"{name}.running_mean", zeros), self.constant(f"{name}.running_var", ones)
        return self.node("BatchNormalization", x, gamma, beta, mean, var, name=name, epsilon=1e-5, momentum=0.9)

    def relu(self, x: str) -> str:
        return self.node("Relu", x, name=f"{x}.relu")

    def flatten(self, x: str) -> str:
        return self.node("Flatten", x, name=f"{x}.flat", axis=1)

    def model(self, output: str, in_shape: tuple[int, ...], outputs: int, dtype: int = TensorProto.FLOAT) -> bytes:
        graph = helper.make_graph(
            self.nodes, "model",
            [helper.make_tensor_value_info("input", dtype, ["batch", *in_shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", outputs])],
            self.initializers,
        )  # fmt: skip
        made = helper.make_model(graph, producer_name="edgefl", opset_imports=[helper.make_opsetid("", OPSET)])
        made.ir_version = 8
        onnx.checker.check_model(made)
        return made.SerializeToString()


def logistic(seed: int = 0) -> bytes:
    """Softmax regression 561 -> 6, a wearable's activity features: 3,372 params."""
    g = Graph(seed)
    return g.model(g.dense("input", "fc", 561, 6), (561,), 6)


def mnist_logistic(seed: int = 0) -> bytes:
    """Softmax regression 784 -> 10."""
    g = Graph(seed)
    return g.model(g.dense("input", "fc", 784, 10), (784,), 10)


def mnist_autoencoder(seed: int = 0) -> bytes:
    """The autoencoder of Reddi et al. 2021 for EMNIST, 784-1000-500-250-30 and back, with sigmoids: 2.8 million
    params."""
    g = Graph(seed)
    x, fan_in = "input", 784
    widths = (1000, 500, 250, 30, 250, 500, 1000, 784)
    for i, width in enumerate(widths, start=1):
        x = g.dense(x, f"fc{i}", fan_in, width)
        if width != 30:  # the bottleneck is linear
            x = g.node("Sigmoid", x, name=f"sigmoid{i}")
        fan_in = width
    return g.model(x, (784,), 784)


def mlp(seed: int = 0) -> bytes:
    """McMahan et al. 2017's 2NN: 199,210 params."""
    g = Graph(seed)
    x = g.relu(g.dense("input", "fc1", 784, 200))
    x = g.relu(g.dense(x, "fc2", 200, 200))
    return g.model(g.dense(x, "fc3", 200, 10), (784,), 10)


def mcmahan_cnn(seed: int = 0) -> bytes:
    """McMahan et al. 2017's CNN, two 5x5 convolutions with SAME padding: 1,663,370 params."""
    g = Graph(seed)
    x = "input"
    for name, c_in, c_out in (("conv1", 1, 32), ("conv2", 32, 64)):
        x = g.relu(g.conv(x, name, c_in, c_out, (5, 5), pads=(2, 2, 2, 2)))
        x = g.node("MaxPool", x, name=f"{name}.pool", kernel_shape=(2, 2), strides=(2, 2))
    x = g.relu(g.dense(g.flatten(x), "fc1", 7 * 7 * 64, 512))
    return g.model(g.dense(x, "fc2", 512, 10), (1, 28, 28), 10)


def resnet8(seed: int = 0) -> bytes:
    """MLPerf Tiny's image classifier, three residual stacks of 16, 32 and 64 channels: about 78,000 params."""
    g = Graph(seed)
    x = g.relu(g.norm(g.conv("input", "stem", 3, 16, (3, 3), pads=(1, 1, 1, 1), bias=False), "stem_norm", 16))
    c_in = 16
    for i, c_out in enumerate((16, 32, 64), start=1):
        stride = (1, 1) if c_in == c_out else (2, 2)
        pads = (1, 1, 1, 1)
        y = g.conv(x, f"conv{i}a", c_in, c_out, (3, 3), strides=stride, pads=pads, bias=False)
        y = g.relu(g.norm(y, f"norm{i}a", c_out))
        y = g.norm(g.conv(y, f"conv{i}b", c_out, c_out, (3, 3), pads=pads, bias=False), f"norm{i}b", c_out)
        if c_in != c_out:
            x = g.conv(x, f"skip{i}", c_in, c_out, (1, 1), strides=stride)
        x = g.relu(g.node("Add", y, x, name=f"add{i}"))
        c_in = c_out
    x = g.flatten(g.node("GlobalAveragePool", x, name="pool"))
    return g.model(g.dense(x, "fc", 64, 10), (3, 32, 32), 10)


def ds_cnn(seed: int = 0) -> bytes:
    """MLPerf Tiny's keyword spotter, depthwise-separable: about 24,000 params."""
    g = Graph(seed)
    x = g.conv("input", "stem", 1, 64, (10, 4), strides=(2, 2), pads=(4, 1, 5, 2), bias=False)
    x = g.relu(g.norm(x, "stem_norm", 64))
    for i in range(1, 5):
        x = g.conv(x, f"depth{i}", 64, 64, (3, 3), pads=(1, 1, 1, 1), groups=64, bias=False)
        x = g.relu(g.norm(x, f"depth_norm{i}", 64))
        x = g.relu(g.norm(g.conv(x, f"point{i}", 64, 64, (1, 1), bias=False), f"point_norm{i}", 64))
    x = g.flatten(g.node("GlobalAveragePool", x, name="pool"))
    return g.model(g.dense(x, "fc", 64, 12), (1, 49, 10), 12)


def autoencoder(seed: int = 0) -> bytes:
    """MLPerf Tiny's anomaly detector, 640 to 8 and back, with batch normalization: about 268,000 params."""
    g = Graph(seed)
    x, fan_in = "input", 640
    for i, width in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128), start=1):
        x = g.relu(g.norm(g.dense(x, f"fc{i}", fan_in, width), f"norm{i}", width))
        fan_in = width
    return g.model(g.dense(x, "fc10", fan_in, 640), (640,), 640)


def char_lstm(seed: int = 0) -> bytes:
    """McMahan et al. 2017's character model: embedding 8, two LSTM layers of 256, the 81st of 80 characters."""
    g = Graph(seed)
    table = g.constant("embedding.weight", g._rng.normal(0, 1, (VOCABULARY, 8)).astype(np.float32))
    x = g.node("Gather", table, "input", name="embedding", axis=0)
    x = g.node("Transpose", x, name="time_major", perm=(1, 0, 2))
    hidden, width = 256, 8
    for layer in (0, 1):
        w = g.weight(f"lstm.W{layer}", (1, 4 * hidden, width), hidden)
        r = g.weight(f"lstm.R{layer}", (1, 4 * hidden, hidden), hidden)
        b = g.weight(f"lstm.B{layer}", (1, 8 * hidden), hidden)
        names = [f"lstm{layer}.Y", ""] if layer == 0 else ["", f"lstm{layer}.Y_h"]
        y = g.node("LSTM", x, w, r, b, name=f"lstm{layer}", outputs=names, hidden_size=hidden)
        axis = g.constant(f"lstm{layer}.axis", np.array([1 if layer == 0 else 0], np.int64))
        x, width = g.node("Squeeze", y, axis, name=f"lstm{layer}.squeeze"), hidden
    return g.model(g.dense(x, "fc", hidden, VOCABULARY), (80,), VOCABULARY, TensorProto.INT64)


def sensor_cnn(seed: int = 0) -> bytes:
    """A 1-D CNN over 9 x 128 windows of an inertial sensor: about 12,000 params."""
    g = Graph(seed)
    x = "input"
    for name, c_in, c_out in (("conv1", 9, 32), ("conv2", 32, 32), ("conv3", 32, 64)):
        x = g.relu(
            g.conv(x, name, c_in, c_out, (5,) if name == "conv1" else (3,), pads=(2, 2) if name == "conv1" else (1, 1))
        )
        x = g.node("MaxPool", x, name=f"{name}.pool", kernel_shape=(2,), strides=(2,))
    x = g.flatten(g.node("GlobalAveragePool", x, name="pool"))
    return g.model(g.dense(x, "fc", 64, 6), (9, 128), 6)


VOCABULARY = 86


@dataclass(frozen=True)
class Spec:
    """How a model is timed: its batch, and what its data is like."""

    make: Callable[[], bytes]
    batch: int
    classes: int | None = 10  # None: it reproduces its input
    tokens: int | None = None

    def data(self, samples: int, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """x (samples, *shape) and y as the model takes them."""
        rng = np.random.default_rng(seed)
        if self.tokens:
            x = rng.integers(0, self.tokens, (samples, *shape))
        else:
            x = rng.normal(0, 1, (samples, *shape)).astype(np.float32)
        y = x if self.classes is None else rng.integers(0, self.classes, samples)
        return x, y


MODELS = {
    "logistic": Spec(logistic, 10, 6),
    "mlp": Spec(mlp, 10),
    "mcmahan_cnn": Spec(mcmahan_cnn, 10),
    "resnet8": Spec(resnet8, 32),
    "ds_cnn": Spec(ds_cnn, 32, 12),
    "autoencoder": Spec(autoencoder, 32, None),
    "char_lstm": Spec(char_lstm, 10, VOCABULARY, VOCABULARY),
    "sensor_cnn": Spec(sensor_cnn, 16, 6),
}
