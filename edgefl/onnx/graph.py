"""An ONNX file before its ops are looked at: its bytes, the order of its nodes.

Every fault in these is a ModelError, also where protobuf raises an error of its own. Not here: its inputs (inputs.py),
weights (trace.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import onnx

from ..errors import ModelError
from .nodes import describe, refuse

OLDEST_OPSET = 7  # before it Add and Gemm broadcast by attributes


def read_onnx(source: bytes) -> onnx.ModelProto:
    """The model in `source`; raises ModelError for anything that is not a self-contained ONNX file."""
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(source)
    except Exception as error:  # the class of protobuf's error differs between its versions
        raise ModelError(f"not an ONNX file ({error}): export the model to ONNX") from None
    if not proto.graph.node or not proto.ir_version:
        raise ModelError("not an ONNX file, or one without a graph: export the model to ONNX")
    if proto.graph.sparse_initializer:
        raise ModelError("the file holds sparse weights: export them dense")
    garbled = next((text for text in _texts(proto.graph) if isinstance(text, bytes)), None)
    if garbled is not None:
        raise ModelError(f"the name {garbled!r} is not UTF-8, so the file is damaged: export the model again")
    return proto


def _texts(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    """The names that a file gives. Some versions of protobuf leave bytes in place of what is not UTF-8."""
    for info in chain(graph.input, graph.output):
        yield info.name
        yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def opset_of(proto: onnx.ModelProto) -> int:
    if not proto.opset_import:
        raise ModelError("the file names no opset, so it is older than ONNX 1.2: export the model again")
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if 0 < opset < OLDEST_OPSET:
        raise ModelError(f"opset {opset} is older than {OLDEST_OPSET}: use onnx.version_converter or export again")
    return opset


def live_order(graph: onnx.GraphProto) -> list[int]:
    """Numbers of the nodes that the outputs depend on, each after those it reads."""
    known = {"", *(info.name for info in graph.input), *(tensor.name for tensor in graph.initializer)}
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in makers or name in known:
                raise refuse(node, f"its output {name!r} exists already: export the model again")
            makers[name] = index
    order: list[int] = []
    state: dict[int, str] = {}
    pending = [(output.name, "the graph", False) for output in reversed(graph.output)]
    while pending:
        name, reader, leaving = pending.pop()
        if leaving:
            state[makers[name]] = "done"
            order.append(makers[name])
        elif name not in makers:
            if name not in known:
                raise ModelError(f"{reader} reads {name!r}, which nothing in the file makes: export the model again")
        elif state.get(makers[name]) == "open":
            raise refuse(graph.node[makers[name]], "it depends on its own output: unroll the loop before export")
        elif makers[name] not in state:
            node = graph.node[makers[name]]
            state[makers[name]] = "open"
            pending.append((name, reader, True))
            pending.extend((read, describe(node), False) for read in reversed(node.input))
    return order


def readers_of(graph: onnx.GraphProto, order: list[int]) -> dict[str, int]:
    readers: dict[str, int] = {}
    for names in [[output.name for output in graph.output], *(graph.node[index].input for index in order)]:
        for name in names:
            readers[name] = readers.get(name, 0) + 1
    return readers


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    made = {name for node in graph.node for name in [*node.input, *node.output]}
    return made | {tensor.name for tensor in graph.initializer} | {info.name for info in graph.input}
