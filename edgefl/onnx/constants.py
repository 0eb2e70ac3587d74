"""Constants: inputs of the file that are the same for every sample, such as an initial state of zeros, or a flag.

They are no inputs of the plan, which computes with their numbers. They stay inputs of the file: a program that runs it
feeds them as before. The initial states of recurrent nodes that nothing else reads are zeros, unless the caller says
otherwise: the core takes no such state for each sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..errors import ModelError, UsageError, nearest
from .graph import live_order
from .items import Const
from .nodes import attributes, refuse
from .single import SEQUENCES

FIRST_STATE = 5  # of a recurrent node's inputs
LARGEST = 2**24  # elements


@dataclass(frozen=True, eq=False)
class Constant:
    """`value` has the input's type and shape, and size 1 along its `axis` of samples, if it has one. `inferred`: the
    caller has not named it."""

    name: str
    value: np.ndarray
    axis: int | None
    inferred: bool

    def fed(self, n: int) -> np.ndarray:
        """As the file takes it with n samples."""
        return self.value if self.axis is None else self.value.repeat(n, self.axis)

    @property
    def item(self) -> Const:
        return Const(self.value, None, self.name)

    @property
    def text(self) -> str:
        """Its numbers, if they are few."""
        first = self.value.flat[0]
        return f"{first:g}" if (self.value == first).all() else f"{self.value.size} numbers"


def constants_of(graph: onnx.GraphProto, given: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[Constant, ...]:
    """Those that the caller names, with a number or an array each, and initial states. `sizes` are those of open axes,
    by name. UsageError for a name or a number that does not fit, ModelError."""
    stored = {tensor.name for tensor in graph.initializer}
    infos = {info.name: info for info in graph.input if info.name not in stored}
    states = _states(graph)
    for name in given:
        if name not in infos:
            raise UsageError(f"constants names {name!r}, no input of the model: {nearest(name, list(infos))}")
    zeros = [name for name in infos if name in states and name not in given]
    wanted = {name: (given.get(name, 0), name in zeros) for name in infos if name in given or name in zeros}
    if len(wanted) == len(infos):
        raise UsageError(f"constants names all inputs ({', '.join(infos)}): leave out those that have examples")
    found = tuple(
        _constant(infos[name], value, states.get(name), sizes, inferred) for name, (value, inferred) in wanted.items()
    )
    _refuse_sizes(graph, {each.name for each in found if each.axis is not None}, infos.keys() - wanted.keys())
    return found


def _refuse_sizes(graph: onnx.GraphProto, constants: Set[str], varying: Set[str]) -> None:
    """Of `constants` the plan has one sample, and the file as many as it is fed: nothing may count them."""
    fixed, open_ = set(constants), set(varying)
    for node in (graph.node[index] for index in live_order(graph)) if fixed else ():
        if not open_.isdisjoint(node.input):
            open_.update(node.output)
        elif not fixed.isdisjoint(node.input):
            if node.op_type in ("Shape", "Size"):
                raise refuse(node, "it reads the size of an input that is constant: read that of another input")
            fixed.update(node.output)


def axes_of(graph: onnx.GraphProto, constants: tuple[Constant, ...]) -> set[str]:
    """The names of these inputs' open axes, which `dims` may give a size."""
    names = {constant.name for constant in constants}
    return {word for info in graph.input if info.name in names for word, size in _dims(info) if size is None}


def _states(graph: onnx.GraphProto) -> dict[str, int]:
    """The names of tensors that recurrent nodes alone read, as initial states, and the axis of the samples in each."""
    reads: dict[str, list[int]] = {}
    for name, axis in _reads(graph):
        reads.setdefault(name, []).append(axis)
    return {name: axes[0] for name, axes in reads.items() if len(set(axes)) == 1 and axes[0] >= 0}


def _reads(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """All reads of tensors, with the axis of samples where an initial state is read, else -1."""
    for output in graph.output:
        yield output.name, -1
    for node in graph.node:
        state = node.op_type in SEQUENCES and node.domain in ("", "ai.onnx")
        last = FIRST_STATE + (1 if node.op_type == "LSTM" else 0)
        for slot, name in enumerate(node.input):
            is_state = state and FIRST_STATE <= slot <= last
            yield name, (0 if attributes(node).get("layout", 0) else 1) if is_state else -1


def _dims(info: onnx.ValueInfoProto) -> list[tuple[str, int | None]]:
    """The axes by name, or by number, with their sizes; None: open."""
    axes = enumerate(info.type.tensor_type.shape.dim)
    return [(dim.dim_param or str(axis), dim.dim_value if dim.dim_value > 0 else None) for axis, dim in axes]


def _constant(
    info: onnx.ValueInfoProto, given: Any, axis: int | None, sizes: Mapping[str, int], inferred: bool
) -> Constant:
    """The samples are along `axis`, else along the only axis that stays open."""
    if not info.type.tensor_type.HasField("shape"):
        raise ModelError(f"input {info.name!r} has no shape, and is to be constant: export the model with shapes")
    dims = [(word, sizes.get(word) if size is None else size) for word, size in _dims(info)]
    loose = [at for at, (_, size) in enumerate(dims) if size is None and at != axis]
    if axis is None and loose:
        axis = loose.pop(0)
    if loose:
        words = ", ".join(dims[at][0] for at in loose)
        raise UsageError(f"constants names {info.name!r}, whose axes {words} are open: name them in dims")
    shape = tuple(1 if at == axis or size is None else size for at, (_, size) in enumerate(dims))
    if axis is not None and axis >= len(shape):
        raise ModelError(
            f"input {info.name!r} of shape {shape} is an initial state: declare (directions, samples, units)"
        )
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return Constant(info.name, _numbers(info.name, given, shape, dtype), axis, inferred)


def _numbers(name: str, given: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    array = np.asarray(given)
    if array.dtype.kind not in "fiub" or dtype.kind not in "fiub":
        raise UsageError(f"constants gives {name!r} the value {given!r}: give a number, or an array of {shape}")
    if prod(shape) > LARGEST:
        raise UsageError(f"constants names {name!r}, which has shape {shape}: use at most {LARGEST} elements")
    try:
        wide = np.broadcast_to(array, shape)
    except ValueError:
        raise UsageError(f"constants gives {name!r} an array of {array.shape}: its shape is {shape}") from None
    with np.errstate(all="ignore"):
        made = wide.astype(dtype)
    exact = np.isfinite(made).all() if dtype.kind == "f" else (made == wide).all()
    if not exact:
        raise UsageError(f"constants gives {name!r} the value {given!r}, which is no {dtype} number")
    return made
