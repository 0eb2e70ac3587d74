"""ONNX files that EdgeFL writes itself: something to start from where there is no model yet.

Layout and names are those of torch's exporter (Gemm with transB, `fc1.weight`), so that what trains here
also loads elsewhere. Needs onnx; not for devices.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import UsageError
from .papers import mcmahan
from .specs import IR_VERSION, OPSET


def mlp(sizes: list[int], *, seed: int = 0, softmax: bool = False) -> onnx.ModelProto:
    """A multilayer perceptron with ReLU between its layers; `sizes` from input to output, e.g. [784, 200, 200, 10].

    Weights are He et al.'s (2015) normal, biases zero; both drawn with `seed`. Without `softmax` the output is logits.
    """
    rng = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "input"
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        weight = rng.normal(0.0, np.sqrt(2.0 / fan_in), (fan_out, fan_in)).astype(np.float32)
        initializers.append(numpy_helper.from_array(weight, f"fc{i}.weight"))
        initializers.append(numpy_helper.from_array(np.zeros(fan_out, np.float32), f"fc{i}.bias"))
        last = i == len(sizes) - 1
        output = "output" if last and not softmax else f"fc{i}.out"
        gemm = helper.make_node("Gemm", [value, f"fc{i}.weight", f"fc{i}.bias"], [output], f"fc{i}", transB=1)
        nodes.append(gemm)
        value = output
        if not last:
            nodes.append(helper.make_node("Relu", [value], [f"relu{i}.out"], f"relu{i}"))
            value = f"relu{i}.out"
    if softmax:
        nodes.append(helper.make_node("Softmax", [value], ["output"], "softmax", axis=-1))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", sizes[0]])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", sizes[-1]])],
        initializers,
    )
    model = helper.make_model(graph, producer_name="edgefl", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return model


def from_spec(spec: str, seed: int = 0) -> onnx.ModelProto:
    """`mlp:784-200-200-10` or `mcmahan:cnn` (papers.py) as a model; UsageError for anything else."""
    kind, _, rest = spec.partition(":")
    if kind == "mcmahan":
        return mcmahan(rest, seed)
    sizes = [int(word) if word.isdecimal() else 0 for word in rest.split("-")]
    if kind != "mlp" or len(sizes) < 2 or min(sizes) < 1 or max(sizes) > 2**20:
        raise UsageError(
            f"{spec!r} names no model: give an ONNX file, or mlp:SIZES such as mlp:784-200-200-10, or mcmahan:cnn"
        )
    return mlp(sizes, seed=seed)
