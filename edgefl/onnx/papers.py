"""The models of published experiments, by name: `mcmahan:2nn`, `mcmahan:cnn`, `mcmahan:char-lstm`.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017 (arXiv:1602.05629), section 3:

    2nn        two hidden layers of 200 units with ReLU: 199,210 params
    cnn        two convolutions of 5x5 with 32 and 64 channels, each followed by a max-pool of 2x2, then a layer of
               512 units with ReLU: 1,663,370 params
    char-lstm  an embedding of 8 dimensions, two LSTM layers of 256 units, one output for each character: 819,920 params
               with the 80 characters of data/characters.py. The paper has 866,578 with a larger alphabet

The paper does not say how weights start: here as in templates.py, and an LSTM's forget gate with a bias of 1.
Outputs are logits. Needs onnx; not for devices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from ..errors import UsageError, nearest
from .templates import Net

CHARACTERS, EMBEDDING, HIDDEN, STEPS = 80, 8, 256, 80


def two_nn(seed: int) -> onnx.ModelProto:
    net = Net((784,), False, seed)
    net.gemm("fc1", 784, 200).add("Relu").gemm("fc2", 200, 200).add("Relu").gemm("fc3", 200, 10)
    return net.done("mcmahan-2nn", [10])


def cnn(seed: int) -> onnx.ModelProto:
    net = Net((1, 28, 28), False, seed)
    for name, inputs, outputs in (("conv1", 1, 32), ("conv2", 32, 64)):
        net.conv(name, inputs, outputs, (5, 5)).add("Relu").add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.add("Flatten", axis=1).gemm("fc1", 7 * 7 * 64, 512).add("Relu").gemm("fc2", 512, 10)
    return net.done("mcmahan-cnn", [10])


def char_lstm(seed: int) -> onnx.ModelProto:
    net = Net((STEPS,), True, seed)
    table = net.rng.normal(0, 1, (CHARACTERS, EMBEDDING)).astype(np.float32)
    net.look_up(net.store("embedding.weight", table)).add("Transpose", perm=[1, 0, 2])
    axis = net.store("axis", np.array([1], np.int64))
    for name, inputs in (("lstm1", EMBEDDING), ("lstm2", HIDDEN)):
        _lstm(net, name, inputs)
        net.add("Squeeze", axis)
    net.add("Transpose", perm=[1, 0, 2])
    net.add("MatMul", net.normal("fc.weight", (HIDDEN, CHARACTERS), HIDDEN))
    net.add("Add", net.zeros("fc.bias", CHARACTERS))
    return net.done("mcmahan-char-lstm", [STEPS, CHARACTERS])


def _lstm(net: Net, name: str, inputs: int) -> None:
    """A layer that gives every step: (T, 1, samples, HIDDEN). ONNX has the gates i, o, f, c, and two biases of each."""
    bound = 1 / np.sqrt(HIDDEN)
    for part, width in (("weight", inputs), ("recurrence", HIDDEN)):
        net.store(f"{name}.{part}", net.rng.uniform(-bound, bound, (1, 4 * HIDDEN, width)).astype(np.float32))
    bias = np.zeros((1, 8 * HIDDEN), np.float32)
    bias[:, 2 * HIDDEN : 3 * HIDDEN] = 1
    stored = [f"{name}.{part}" for part in ("weight", "recurrence")]
    net.add("LSTM", *stored, net.store(f"{name}.bias", bias), outputs=[f"{name}.all"], hidden_size=HIDDEN)


MCMAHAN: dict[str, Callable[[int], onnx.ModelProto]] = {"2nn": two_nn, "cnn": cnn, "char-lstm": char_lstm}


def mcmahan(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model of that name; UsageError if the paper has no such model."""
    if name not in MCMAHAN:
        raise UsageError(f"there is no model 'mcmahan:{name}': {nearest(name, MCMAHAN)}")
    return MCMAHAN[name](seed)
