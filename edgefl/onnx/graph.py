"""An ONNX file before its ops are looked at: its bytes, its one input, the order of its nodes.

Every fault in these is a ModelError, also where protobuf raises an error of its own. Not here: weights (trace.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ..errors import ModelError, UsageError, nearest
from .nodes import describe, refuse

TOKENS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
OLDEST_OPSET = 7  # before it Add and Gemm broadcast by attributes


@dataclass(frozen=True)
class Input:
    """The only input that is not an initializer. `batch` is the number of samples, None if the file leaves it open."""

    name: str
    batch: int | None
    shape: tuple[int, ...]  # per sample
    dtype: np.dtype

    @property
    def tokens(self) -> bool:
        return self.dtype.kind == "i"


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
    return proto


def opset_of(proto: onnx.ModelProto) -> int:
    if not proto.opset_import:
        raise ModelError("the file names no opset, so it is older than ONNX 1.2: export the model again")
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if 0 < opset < OLDEST_OPSET:
        raise ModelError(f"opset {opset} is older than {OLDEST_OPSET}: use onnx.version_converter or export again")
    return opset


def graph_input(graph: onnx.GraphProto, named: Mapping[str, int]) -> Input:
    """The graph's input; `named` gives sizes to axes that the file leaves open, by their names in it."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in graph.input:
        if info.name in stored and _dims(info) not in (None, stored[info.name]):
            raise ModelError(
                f"initializer {info.name!r} is {stored[info.name]}, its declared shape {_dims(info)}: "
                "export the model again"
            )
    inputs = [info for info in graph.input if info.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(repr(info.name) for info in inputs) or "none"
        raise ModelError(f"EdgeFL trains models with one input, this one has {names}: merge them into one tensor")
    info, dims = inputs[0], _dims(inputs[0])
    kind = info.type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT and kind not in TOKENS:
        raise ModelError(f"input {info.name!r} is not float32 (nor int64 tokens): export the model for float32 inputs")
    if dims is None or not 2 <= len(dims) <= 5:
        raise ModelError(f"input {info.name!r} has shape {dims}: declare (samples, features), or up to 4 axes a sample")
    return Input(info.name, dims[0], _sample_shape(info, dims, named), helper.tensor_dtype_to_np_dtype(kind))


def _sample_shape(info: onnx.ValueInfoProto, dims: tuple[int | None, ...], named: Mapping[str, int]) -> tuple[int, ...]:
    words = [dim.dim_param or str(axis) for axis, dim in enumerate(info.type.tensor_type.shape.dim)]
    loose = [word for word, size in zip(words[1:], dims[1:], strict=True) if size is None]
    for word, size in named.items():
        if word not in loose:
            known = nearest(word, loose) if loose else "it has none"
            raise UsageError(f"dims names {word!r}, no open axis of input {info.name!r} but that of samples: {known}")
        if not isinstance(size, int) or not 0 < size <= 2**24:
            raise UsageError(f"dims gives {word!r} the size {size!r}: give a whole number of 1 or more")
    shape = []
    for axis, (word, given) in enumerate(zip(words[1:], dims[1:], strict=True), 1):
        if given is None and word not in named:
            raise ModelError(
                f"input {info.name!r} has a dynamic axis {axis} ({word}): only the first, for samples, may be; "
                f"export with fixed sizes, or name one: dims={{{word!r}: 32}} (--dim {word}=32)"
            )
        shape.append(named[word] if given is None else given)
    return tuple(shape)


def _dims(info: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The declared shape. A dynamic axis is None, and so is a missing shape."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


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
