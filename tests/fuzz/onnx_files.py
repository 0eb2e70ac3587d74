"""edgefl.load: any bytes are a model, or a ModelError that says what is wrong. Nothing of the file is trained here.

Half of the mutations change one field of the file, so that the message around it stays whole.
"""

from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgefl
from edgefl.onnx import zoo

LONGEST = 16 * 1024
OPS = [
    "Gemm",
    "MatMul",
    "Conv",
    "Relu",
    "Reshape",
    "Transpose",
    "Flatten",
    "Add",
    "Concat",
    "Slice",
    "Pad",
    "LSTM",
    "GRU",
    "Gather",
    "Softmax",
    "MaxPool",
    "AveragePool",
    "BatchNormalization",
    "LayerNormalization",
    "Split",
    "Squeeze",
    "Unsqueeze",
    "ReduceMean",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Shape",
    "Cast",
    "Clip",
    "Range",
    "Dropout",
]
NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**24, 2**31, -(2**31), 2**62, -(2**63))


def small(nodes: list[onnx.NodeProto], shape: list[int | str], weights: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def seeds() -> list[bytes]:
    f, rng, node = np.float32, np.random.default_rng(0), helper.make_node
    conv = small(
        [
            node("Conv", ["x", "k", "b"], ["a"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["a", "s", "b", "b", "s"], ["n"]),
            node("Relu", ["n"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Reshape", ["p", "to"], ["f"]),
            node("Gemm", ["f", "w"], ["y"], transB=1),
        ],
        ["n", 1, 4, 4],
        {"k": rng.normal(size=(2, 1, 3, 3)).astype(f), "b": np.zeros(2, f), "s": np.ones(2, f),
         "w": rng.normal(size=(3, 8)).astype(f), "to": np.array([0, -1])},
    )  # fmt: skip
    recurrent = small(
        [
            node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
            node("LSTM", ["xt", "w", "r", "b"], ["", "h"], hidden_size=2),
            node("Squeeze", ["h", "axes"], ["s"]),
            node("MatMul", ["s", "m"], ["t"]),
            node("Softmax", ["t"], ["y"], axis=-1),
        ],
        ["n", 5, 3],
        {"w": rng.normal(size=(1, 8, 3)).astype(f), "r": rng.normal(size=(1, 8, 2)).astype(f),
         "b": np.zeros((1, 16), f), "axes": np.array([0]), "m": np.ones((2, 3), f)},
    )  # fmt: skip
    arranged = small(
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("Slice", ["t", "from", "to", "axes"], ["s"]),
            node("Pad", ["s", "pads"], ["p"]),
            node("Concat", ["p", "p"], ["c"], axis=1),
            node("ReduceMean", ["c"], ["r"], axes=[1], keepdims=0),
            node("LayerNormalization", ["r", "g", "g"], ["l"]),
            node("Mul", ["l", "g"], ["y"]),
        ],
        ["n", 2, 4],
        {"from": np.array([1]), "to": np.array([3]), "axes": np.array([1]), "pads": np.array([0, 0, 1, 0, 0, 1]),
         "g": np.ones(4, f)},
    )  # fmt: skip
    return [zoo.mlp([4, 3, 2]).SerializeToString(), zoo.mlp([3, 2], softmax=True).SerializeToString(), conv, recurrent,
            arranged]  # fmt: skip


def mend(data: bytes) -> bytes:
    """The file with one field changed, where it is a file at all; which one depends on the bytes alone."""
    rng = random.Random(data)
    if rng.random() < 0.5:
        return data
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception:
        return data
    rng.choice((change_node, change_weight, change_input, change_version))(proto, rng)
    return proto.SerializeToString()


def change_node(proto: onnx.ModelProto, rng: random.Random) -> None:
    if not proto.graph.node:
        return
    node, other = rng.choice(proto.graph.node), rng.choice(proto.graph.node)
    names = [*other.input, *other.output, "", "x", *(tensor.name for tensor in proto.graph.initializer)]
    what = rng.randrange(6)
    if what == 0:
        node.op_type = rng.choice(OPS)
    elif what == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif what == 2:
        node.input.append(rng.choice(names))
    elif what == 3 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif what == 4:
        value = rng.choice((rng.choice(NUMBERS), 0.5, "text", [rng.choice(NUMBERS) for _ in range(rng.randint(1, 6))]))
        name = rng.choice([*(attribute.name for attribute in node.attribute), "axis", "axes", "perm", "group", "alpha"])
        keep = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*keep, helper.make_attribute(name, value)])
    else:
        proto.graph.node.append(other)


def change_weight(proto: onnx.ModelProto, rng: random.Random) -> None:
    if not proto.graph.initializer:
        return
    tensor = rng.choice(proto.graph.initializer)
    what = rng.randrange(4)
    if what == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif what == 1:
        tensor.data_type = rng.randrange(24)
    elif what == 2:
        tensor.dims.append(rng.choice(NUMBERS))
    else:
        tensor.CopyFrom(numpy_helper.from_array(np.array([rng.choice(NUMBERS) for _ in range(3)]), tensor.name))


def change_input(proto: onnx.ModelProto, rng: random.Random) -> None:
    if not proto.graph.input:
        return
    kind = rng.choice(proto.graph.input).type.tensor_type
    if rng.random() < 0.3:
        kind.elem_type = rng.randrange(24)
    elif kind.shape.dim:
        rng.choice(kind.shape.dim).dim_value = rng.choice(NUMBERS)
    else:
        kind.shape.dim.add().dim_value = rng.choice(NUMBERS)


def change_version(proto: onnx.ModelProto, rng: random.Random) -> None:
    for opset in proto.opset_import:
        opset.version = rng.randrange(6, 24)


def run(data: bytes) -> None:
    model = edgefl.load(data)
    assert len(model.params) == model.plan.num_params
    edgefl.Plan.from_bytes(model.plan.to_bytes())
