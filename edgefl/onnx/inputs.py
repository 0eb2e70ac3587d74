"""The inputs of an ONNX graph: their samples, and how the plan's one flat row is cut into several.

What the file declares can be read in several ways, which are tried in this order: with an axis of samples, the first,
or behind the steps of a recurrent op; and as one sample, whose axis is not followed, or which has none. The last needs
fixed sizes: a file with a free number of samples is refused where it does not keep them apart, unless `dims` gives that
number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
from onnx import helper

from ..core import plan as plans
from ..errors import ModelError, UsageError, nearest
from .constants import Constant, axes_of
from .items import Item, Value
from .layout import fresh
from .single import SEQUENCES
from .trace import Trace

TOKENS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
LARGEST_DIM = 2**24


@dataclass(frozen=True)
class Input:
    """An input that is not an initializer, with the `shape` of a sample. `axis` is that of the samples, None if the
    input holds one sample and has no axis for it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axis: int | None = 0

    @property
    def tokens(self) -> bool:
        return self.dtype.kind == "i"

    @property
    def size(self) -> int:
        return prod(self.shape)

    def stacked(self, rows: np.ndarray) -> np.ndarray:
        """Samples (n, *shape) as the file takes them; without an axis of samples, the only one."""
        return rows[0] if self.axis is None else np.moveaxis(rows, 0, self.axis)


@dataclass(frozen=True)
class Reading:
    """`batch` is the number of samples in a run, None if the file leaves it open. `alone`: it is one, and its axis, if
    the inputs have one, may be reshaped away, or be that of something else later (single.py)."""

    inputs: tuple[Input, ...]
    batch: int | None
    alone: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample in the plan."""
        return self.inputs[0].shape if len(self.inputs) == 1 else (sum(each.size for each in self.inputs),)

    @property
    def tokens(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].tokens

    def declared(self) -> list[plans.Input] | None:
        """What the plan says of several inputs."""
        if len(self.inputs) == 1:
            return None
        return [plans.Input(each.name, list(each.shape), "int64" if each.tokens else "float32") for each in self.inputs]


def readings(
    graph: onnx.GraphProto, named: Mapping[str, int], constants: tuple[Constant, ...] = ()
) -> Iterator[Reading]:
    """The ways to read the inputs but for `constants`. `named` gives sizes to axes that the file leaves open, by their
    names in it: to all axes of that name. Raises ModelError without any input, UsageError for a name that the file does
    not have."""
    infos = [_Declared(info) for info in _open_inputs(graph, constants)]
    _check_names(infos, named, axes_of(graph, constants))
    whole = named.get(infos[0].words[0], 1) > 1 and infos[0].dims[0] is None  # then it is no number of samples
    sized = [each.sized(named) for each in infos]
    reading, why = (None, "") if whole else _with_samples(sized)
    if reading is not None:
        yield reading
    steps_first = _behind_steps(graph, sized)
    if steps_first is not None:
        yield steps_first
    if reading is not None and reading.batch == 1:
        yield replace(reading, alone=True)
    elif all(None not in each.dims and len(each.dims) <= 4 for each in sized):
        yield Reading(tuple(Input(each.name, _known(each.dims), each.dtype, None) for each in sized), 1, alone=True)
    elif reading is None and steps_first is None:
        loose = ", ".join(word for each in sized for word in each.open)
        raise ModelError(why or f"the inputs' axes {loose} are open: name all of them in dims, or leave the first out")


def _behind_steps(graph: onnx.GraphProto, infos: list[_Declared]) -> Reading | None:
    """The only input as a recurrent op takes it: (steps, samples, features), or tokens (steps, samples). Exporters may
    write such an op as others; then the samples are the only open axis."""
    info, rest = infos[0], infos[0].dims[:1] + infos[0].dims[2:]
    if len(infos) != 1 or len(info.dims) != (2 if info.dtype.kind == "i" else 3) or None in rest:
        return None
    if info.dims[1] is not None and not any(node.op_type in SEQUENCES for node in graph.node):
        return None
    return Reading((Input(info.name, _known(rest), info.dtype, 1),), info.dims[1])


def free_samples(graph: onnx.GraphProto, constants: tuple[Constant, ...] = ()) -> list[str]:
    """What `dims` calls the first axis of the first input, if the file leaves it open; else nothing."""
    first = _Declared(_open_inputs(graph, constants)[0])
    return first.words[:1] if first.dims[0] is None else []


class _Declared:
    """An input as the file declares it. An open axis has the size None, and its name in `words`, or its number."""

    def __init__(self, info: onnx.ValueInfoProto) -> None:
        kind = info.type.tensor_type.elem_type
        if kind != onnx.TensorProto.FLOAT and kind not in TOKENS:
            raise ModelError(
                f"input {info.name!r} is not float32 (nor int64 tokens): export the model for float32 inputs"
            )
        dims = dims_of(info)
        if dims is None or not 1 <= len(dims) <= 5:
            raise ModelError(
                f"input {info.name!r} has shape {dims}: declare (samples, features), or up to 4 axes a sample"
            )
        self.name, self.dims = info.name, dims
        self.dtype = helper.tensor_dtype_to_np_dtype(kind)
        self.words = [dim.dim_param or str(axis) for axis, dim in enumerate(info.type.tensor_type.shape.dim)]

    @property
    def open(self) -> list[str]:
        return [word for word, size in zip(self.words, self.dims, strict=True) if size is None]

    def sized(self, named: Mapping[str, int]) -> _Declared:
        pairs = zip(self.words, self.dims, strict=True)
        self.dims = tuple(named.get(word) if size is None else size for word, size in pairs)
        return self


def _with_samples(infos: list[_Declared]) -> tuple[Reading | None, str]:
    """Each input with an axis of samples; or None, and why that can't be."""
    first = infos[0]
    batch = first.dims[0]
    if len(first.dims) == 1 and batch is not None:
        return None, ""
    inputs = []
    for info in infos:
        axis = _samples_axis(info, first.words[0], batch)
        if axis is None:
            return None, (
                f"input {info.name!r} has no axis of {'a free number of' if batch is None else batch} samples as "
                f"{first.name!r} has: give all inputs one"
            )
        rest = info.dims[:axis] + info.dims[axis + 1 :]
        if None in rest:
            at = next(at for at, size in enumerate(info.dims) if size is None and at != axis)
            word = info.words[at]
            return None, (
                f"input {info.name!r} has a dynamic axis {at} ({word}): only the first, for samples, may be; "
                f"export with fixed sizes, or name one: dims={{{word!r}: 32}} (--dim {word}=32)"
            )
        inputs.append(Input(info.name, _known(rest), info.dtype, axis))
    return Reading(tuple(inputs), batch), ""


def _samples_axis(info: _Declared, word: str, batch: int | None) -> int | None:
    """The axis called as the first of the first input, else the first that has room for as many samples."""
    if batch is None and not word.isdecimal() and word in info.words:
        return info.words.index(word)
    return next((at for at, size in enumerate(info.dims[:2]) if size == batch), None)


def _known(dims: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(size for size in dims if size is not None)


def _open_inputs(graph: onnx.GraphProto, constants: tuple[Constant, ...]) -> list[onnx.ValueInfoProto]:
    """Those that no initializer fills, and that are not the same for every sample."""
    fixed = {constant.name for constant in constants}
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in graph.input:
        if info.name in stored and dims_of(info) not in (None, stored[info.name]):
            raise ModelError(
                f"initializer {info.name!r} is {stored[info.name]}, its declared shape {dims_of(info)}: "
                "export the model again"
            )
    inputs = [info for info in graph.input if info.name not in stored and info.name not in fixed]
    if not 1 <= len(inputs) <= 32:
        raise ModelError(f"the model has {len(inputs)} inputs: EdgeFL trains models with 1 to 32")
    return inputs


def _check_names(infos: list[_Declared], named: Mapping[str, int], others: set[str]) -> None:
    loose = [*(word for info in infos for word in info.open), *sorted(others)]
    names = ", ".join(repr(info.name) for info in infos)
    for word, size in named.items():
        if word not in loose:
            known = nearest(word, loose) if loose else "it has none"
            raise UsageError(f"dims names {word!r}, no open axis of input {names}: {known}")
        if not isinstance(size, int) or not 0 < size <= LARGEST_DIM:
            raise UsageError(f"dims gives {word!r} the size {size!r}: give a whole number of 1 or more")


def dims_of(info: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The declared shape. A dynamic axis is None, and so is a missing shape."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def placed(trace: Trace, reading: Reading, constants: tuple[Constant, ...]) -> dict[str, Item]:
    """The inputs as values of the plan, or as constants. Several are slices of value 0, which has no name in the
    file."""
    trace.shapes.append(reading.shape)
    items: dict[str, Item] = {constant.name: constant.item for constant in constants}
    start = 0
    for each in reading.inputs:
        sizes: list[int | None] = list(each.shape)
        if each.axis is not None:
            sizes.insert(each.axis, None)
        number = 0
        if len(reading.inputs) > 1 and trace.readers.get(each.name):
            node = onnx.NodeProto(op_type="input", name=each.name)
            number = trace.append(node, "slice", [0], (each.size,), ints=[0, start, each.size])
            if each.shape != (each.size,):
                number = trace.append(node, "reshape", [number], each.shape, ints=each.shape)
        start += each.size
        layout = fresh(sizes, trace.samples)
        items[each.name] = Value(number, layout.released() if reading.alone else layout, each.name, each.tokens)
    return items
