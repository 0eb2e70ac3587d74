"""Plan.from_bytes, and what the core makes of the plan: it is refused, or one step of training runs.

Plans whose step would take long are compiled only: what a device allows is its owner's policy, not the compiler's.
plan.c looks at the compiler alone, without JSON and much faster; `python -m fuzz.plans FOLDER` writes its seeds.
"""

from __future__ import annotations

import re
import struct
import sys
from math import prod
from pathlib import Path

import numpy as np

from edgefl import _core
from edgefl.core.plan import LOSSES, Head, Input, Node, Param, Plan

ARENA, WORK = 2**22, 2**22  # bytes, multiplications a sample
SAMPLES = 3
LONGEST = 8192
# A node that reads value 1, and perhaps the input: (op, inputs, params, ints, floats).
CASES: list[tuple[str, list[int], list[int], list[int], list[float]]] = [
    ("dense", [1], [0], [1], []), ("sub", [1, 0], [], [1], []), ("mul", [1, 0], [], [0], []),
    ("mul", [1], [1], [0], []), ("div", [1], [1], [0], []), ("add", [1], [1], [0], []), ("mean", [1], [], [0], []),
    ("mean", [1], [], [0, 1], []), ("transpose", [1], [], [1, 0], []), ("pad", [1], [], [1, 0, 2, 3], [0.0]),
    ("slice", [1], [], [0, 1, 2], []), ("concat", [1, 0], [], [1], []), ("leaky_relu", [1], [], [], [0.1]),
    ("clip", [1], [], [], [-0.1, 0.1]), ("hard_sigmoid", [1], [], [], [0.2, 0.5]), ("hard_swish", [1], [], [], []),
    ("gelu", [1], [], [0], []), ("erf", [1], [], [], []), ("exp", [1], [], [], []), ("abs", [1], [], [], []),
    ("pow", [1], [], [], [2.0]), ("elu", [1], [], [], [1.0]), ("softplus", [1], [], [], []),
    ("batch_norm", [1], [1, 2, 3, 4], [], [1.0, 0.9]), ("layer_norm", [1], [1, 2], [], [1e-3]),
    ("dropout", [1], [], [], [0.3]), ("softmax", [1], [], [], []), ("log_softmax", [1], [], [], []),
    ("reshape", [1], [], [3, 2], []), ("flatten", [1], [], [], []), ("sqrt", [1], [], [], []), ("log", [1], [], [], []),
    ("relu", [1], [], [], []), ("tanh", [1], [], [], []), ("sigmoid", [1], [], [], []),
    ("resize", [1], [], [0, 5, 1, 0, 0], [2.5]), ("resize", [1], [], [1, 2, 0, 1, 3], [0.7]),
    ("extend", [1], [], [0, 1, 1, 0], []), ("stride", [1], [], [1, 2, -1, 3], []), ("expand", [1], [], [2, 3], []),
    ("repeat", [1], [1], [], []), ("lrn", [1], [], [2], [0.5, 0.75, 1.0]),
    ("mask", [1], [], [1, 0], [-1.0]), ("mask", [1], [1], [], [0.0]),
    ("select", [1, 0, 0], [], [], []), ("max", [1, 0], [], [], []), ("min", [1], [1], [0], []),
    ("reduce_max", [1], [], [0], []), ("reduce_min", [1], [], [0, 1], []), ("norm", [1], [], [1], []),
    ("log_sum_exp", [1], [], [1], []), ("group_norm", [1], [], [1, 1], [1e-3]), ("mish", [1], [], [], []),
    ("threshold", [1], [], [], [0.1, 0.2]), ("shrink", [1], [], [], [0.1, 0.2]), ("sin", [1], [], [], []),
    ("cos", [1], [], [], []), ("step", [1], [], [], [1.0, 0.0]), ("keep", [1, 0], [], [], [-1.0]),
]  # fmt: skip


def pictures(average: bool) -> Plan:
    nodes = [
        Node("depthwise", [0], [0], [2, 2, 1, 1, 1, 1, 1, 1]),
        Node("conv", [1], [1, 2], [1, 1, 1, 1, 1, 1, 1, 1, 2]),
        Node("avgpool" if average else "maxpool", [2], [], [2, 3, 1, 2, 1, 2, 0, 1, *([1] if average else [])]),
        Node("flatten", [3]),
        Node("dense", [4], [3]),
    ]
    params = [Param("d", [3, 3, 4]), Param("k", [3, 3, 2, 4]), Param("b", [4]), Param("w", [40, 3])]
    plan = Plan([7, 6, 2], nodes, params, "cross_entropy", 5, 5)
    size = prod(_core.Net(Plan(plan.input_shape, nodes[:4], params[:3], "mse", 4, 4)).shapes[-1])
    return Plan(plan.input_shape, nodes, [*params[:3], Param("w", [size, 3])], "cross_entropy", 5, 5)


def enlarged() -> Plan:
    nodes = [Node("conv_transpose", [0], [0, 1], [2, 3, 1, 0, 0, 1, 1, 2, 2, 4, 8]), Node("flatten", [1])]
    return Plan([2, 3, 4], nodes, [Param("k", [3, 2, 3, 4]), Param("b", [6])], "mse", 2, 2)


def in_parts() -> Plan:
    """A convolution and a dense layer of which some input channels are trained."""
    nodes = [
        Node("conv_part", [0], [0, 3, 1], [2, 1, 1, 0, 1, 2, 1, 2, 0b101]),
        Node("conv_part", [1], [2, 4], [1, 1, 0, 0, 0, 0, 1, 1, 0b0110]),
    ]
    shapes = [[3, 2, 2, 4], [4], [2, 3], [3, 2, 2, 4], [2, 3]]
    params = [Param("p", shape, index < 3) for index, shape in enumerate(shapes)]
    return Plan([5, 4, 4], nodes, params, "mse", 2, 2)


def sequence(op: str, direction: int) -> Plan:
    both, gated, hidden = (2 if direction == 2 else 1), {"rnn": 3, "gru": 9, "lstm": 12}[op], 3
    deep, ints = both * hidden, [hidden, direction]
    weights = [[both, 4, gated], [both, hidden, gated], [both, gated], [both, gated]]
    starts = [[both, hidden]] * (2 if op == "lstm" else 1)
    deeper = [[both, deep, gated], *weights[1:]]
    more = [] if op == "lstm" else [1]
    nodes = [
        Node("embedding", [0], [0]),
        Node(op, [1], [1, 2, 3, 4, *range(10, 10 + len(starts))], [*ints, 0, *more]),
        Node("matmul", [2, 2], [], [1]),
        Node("softmax", [3]),
        Node("matmul", [4, 2], [], [0]),
        Node(op, [5], [5, 6, 7, 8], [*ints, 1, *more]),
        Node("dense", [6], [9]),
    ]
    params = [Param("p", shape) for shape in [[5, 4], *weights, *deeper, [deep, 3], *starts]]
    return Plan([4], nodes, params, "cross_entropy", 7, 7, "int64")


def several(first: str, second: str) -> Plan:
    """Three inputs, two of them tokens with vocabularies of their own, and two losses on one chain."""
    nodes = [
        Node("slice", [0], [], [0, 0, 2]), Node("embedding", [1], [0]), Node("flatten", [2]),
        Node("slice", [0], [], [0, 2, 1]), Node("reshape", [4]), Node("embedding", [5], [1]),
        Node("slice", [0], [], [0, 3, 3]), Node("concat", [3, 6, 7], [], [0]), Node("dense", [8], [2]),
        Node("tanh", [9]), Node("dense", [10], [3]), Node("concat", [9, 11], [], [0]),
    ]  # fmt: skip
    params = [Param("e", [5, 3]), Param("f", [3, 2]), Param("w", [11, 4]), Param("v", [4, 2])]
    inputs = [Input("a", [2], "int64"), Input("b", [], "int64"), Input("c", [3])]
    losses = [Head("p", first, 9, 1.0, [4]), Head("q", second, 11, 0.5, [2])]
    return Plan([6], nodes, params, first, 9, 12, inputs=inputs, losses=losses)


def plans() -> list[Plan]:
    """Each op of the core, and each loss."""
    params = [Param("w", [3, 3]), *(Param(name, [3]) for name in "gb"), *(Param(name, [3], False) for name in "mv")]
    made = [
        several("cross_entropy", "mse"),
        several("bce", "hinge"),
        pictures(False),
        pictures(True),
        enlarged(),
        in_parts(),
        *(sequence(op, way) for op in ("lstm", "gru", "rnn") for way in range(3)),
    ]
    for number, (op, *rest) in enumerate(CASES):
        nodes = [Node("dense", [0], [0]), Node(op, *rest)]
        made.append(Plan([2, 3], nodes, params, LOSSES[number % len(LOSSES)], 2, 2))
    return made


def seeds() -> list[bytes]:
    return [plan.to_bytes() for plan in plans()]


def run(data: bytes) -> None:
    plan = Plan.from_bytes(data)
    assert Plan.from_bytes(plan.to_bytes()) == plan
    _core.plan_needs(plan, SAMPLES)
    net = _core.Net(plan, SAMPLES, ARENA)
    size = prod(net.shapes[0])
    if sum(net.flops) <= WORK and max(net.num_params, size) <= ARENA:
        step(plan, net, size)


def step(plan: Plan, net: _core.Net, size: int) -> None:
    params, delta = np.full(net.num_params, 0.1, np.float32), np.empty(net.num_params, np.float32)
    x = (np.arange(SAMPLES * size) % 3).astype(np.float32)
    count, kind = (net.target_size, np.float32) if net.target_size else (net.label_count, np.int64)
    y, out = np.zeros(SAMPLES * count, kind), np.empty(SAMPLES * prod(net.shapes[plan.output]), np.float32)
    options = {"epochs": 1, "max_steps": 0, "seed": 0, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "prox_mu": 0.1}
    net.fit(params, x, y, delta, batch_size=SAMPLES, clip_norm=1.0, **options)
    if not net.mixes_samples:
        net.fit(params, x, y, delta, batch_size=2, clip_norm=0.0, **options)
    net.gradient(params, x, y, delta)
    net.evaluate(params, x, y)
    net.predict(params, x, out)


# ---- seeds of plan.c, which says how it reads them


def number(value: int) -> bytes:
    if -16 <= value < 224:
        return bytes([value + 16])
    return b"\xff" + value.to_bytes(8, "little", signed=True)


def shape(dims: list[int]) -> bytes:
    return bytes([len(dims)]) + b"".join(map(number, dims))


def names(table: str, kind: str) -> list[str]:
    """The ops or losses in the order of ops.h."""
    text = (Path(__file__).parents[2] / "src" / "ops" / "ops.h").read_text()
    lines = text[text.index(f"#define {table}(") :].replace("\\\n", " ").splitlines()[0]
    return re.findall(rf"\b{kind}\((\w+)\)", lines.partition(")")[2])


def binary(plan: Plan) -> bytes:
    ops, made = names("EFL_OPS", "op"), [bytes([0, 2]), shape(plan.input_shape), bytes([len(plan.params)])]
    made += [shape(param.shape) + bytes([param.trainable]) for param in plan.params]
    made.append(bytes([len(plan.nodes)]))
    for node in plan.nodes:
        lists = (node.inputs, node.params, node.ints)
        made += [bytes([ops.index(node.op)]), *(bytes([len(some)]) + b"".join(map(number, some)) for some in lists)]
        made += [bytes([len(node.floats)]), *(struct.pack("<d", value) for value in node.floats)]
    ends, losses = number(plan.loss_input) + number(plan.output), names("EFL_LOSSES", "loss")
    made += [bytes([losses.index(plan.loss)]), ends, bytes([len(plan.losses or [])])]
    for head in plan.losses or []:
        made.append(bytes([losses.index(head.loss)]) + number(head.input) + bytes([int(16 * head.weight)]))
    return b"".join(made)


if __name__ == "__main__":
    for index, plan in enumerate(plans()):
        (Path(sys.argv[1]) / f"seed-{index:03}").write_bytes(binary(plan))
