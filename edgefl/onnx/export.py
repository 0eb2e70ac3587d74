"""ONNX out: writes trained params into the ONNX file that they came from.

Design:
  a) Every float32 number that a file stores has a position in one imaginary vector, the file vector, in which
     the file's tensors (`Origin`) lie one after another.
  b) A `Binding` has the positions and the scale of the elements of one Param.
  c) An element that training did not change keeps its bits; a file without changes keeps its bytes.
  d) Two Params may start from the same tensor (sharing.py). Once they differ, the first keeps the tensor and the
     other gets an initializer of its own, which its nodes read from then on. Params that share an input of a node,
     as the two biases of an LSTM do, stay together.
  e) A number that the graph computes from others has no position. It is not trained and stays as it is.

Not here: which param comes from where (compiler.py), and files on disk (model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

INITIALIZERS_ARE_INPUTS_BEFORE_IR = 4


@dataclass(frozen=True)
class Origin:
    """A tensor of the file: initializer number `index`, or attribute `attribute` of node number `index`."""

    index: int
    attribute: str | None
    values: np.ndarray  # (n,) float32, as the file holds them
    offset: int  # of values[0] in the file vector


@dataclass(frozen=True)
class Place:
    """The positions of a param's elements: param = scale * file_vector[where]."""

    where: np.ndarray  # (size,) int64
    scale: float = 1.0


@dataclass(frozen=True)
class Binding:
    """How one Param is written back. `slot` is the input of `nodes` that reads it, None for an attribute."""

    places: tuple[Place, ...]
    nodes: tuple[int, ...]  # numbers in the graph
    slot: int | None
    slot_shape: tuple[int, ...]
    layout: np.ndarray  # (size,) int64: element i of the param is element layout[i] of that input


def write_params(
    source: bytes,
    origins: Sequence[Origin],
    bindings: Sequence[Binding],
    names: Sequence[str],
    *,
    before: np.ndarray,  # (P,) float32, as loaded
    after: np.ndarray,  # (P,) float32, as trained
) -> bytes:
    """The ONNX file `source` with `after` in place of `before`. names[i] is for a new initializer of binding i."""
    kept = before.view(np.uint32) == after.view(np.uint32)
    if kept.all():
        return source
    proto = onnx.ModelProto.FromString(source)
    loaded = np.concatenate([origin.values for origin in origins])
    written, taken = loaded.copy(), np.zeros(loaded.size, bool)
    trained = _Trained(loaded, kept, after, bindings)
    for members in input_groups(bindings):
        changes = [change for at in members for change in trained.changes(at)]
        if any((taken[where] & (written[where] != values)).any() for where, values in changes):
            tensor = np.empty(sum(bindings[at].layout.size for at in members), np.float32)
            for at, (_, values) in zip(members, changes, strict=True):
                tensor[bindings[at].layout] = values
            _split(proto, bindings[members[0]], names[members[0]], tensor)
            continue
        for where, values in changes:
            written[where] = values
            taken[where] = True
    for origin in origins:
        values = written[origin.offset : origin.offset + origin.values.size]
        if (values.view(np.uint32) != origin.values.view(np.uint32)).any():
            _store(proto.graph, origin, values)
    saved: bytes = proto.SerializeToString()
    return saved


class _Trained:
    """The new values of each binding's elements in the file."""

    def __init__(self, loaded: np.ndarray, kept: np.ndarray, after: np.ndarray, bindings: Sequence[Binding]) -> None:
        self.loaded, self.kept, self.after, self.bindings = loaded, kept, after, bindings
        self.starts = np.cumsum([0, *(binding.layout.size for binding in bindings)])

    def changes(self, at: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions in the file vector and their new values, for each place of binding number `at`."""
        span = slice(self.starts[at], self.starts[at + 1])
        found = []
        for place in self.bindings[at].places:
            moved = (self.after[span].astype(np.float64) / place.scale).astype(np.float32)
            found.append((place.where, np.where(self.kept[span], self.loaded[place.where], moved)))
        return found


def input_groups(bindings: Sequence[Binding]) -> list[list[int]]:
    """The numbers of the bindings, grouped by the node input that they make up."""
    groups: dict[tuple[tuple[int, ...], int | None, int | None], list[int]] = {}
    for at, binding in enumerate(bindings):
        alone = at if binding.slot is None else None
        groups.setdefault((binding.nodes, binding.slot, alone), []).append(at)
    return list(groups.values())


def _split(proto: onnx.ModelProto, binding: Binding, name: str, tensor: np.ndarray) -> None:
    """Gives the nodes of `binding` an initializer of their own: `tensor`, in the order of the input it replaces."""
    assert binding.slot is not None, "an attribute belongs to one node alone"
    proto.graph.initializer.append(numpy_helper.from_array(tensor.reshape(binding.slot_shape), name))
    for node in binding.nodes:
        proto.graph.node[node].input[binding.slot] = name
    if proto.ir_version < INITIALIZERS_ARE_INPUTS_BEFORE_IR:
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, binding.slot_shape)
        proto.graph.input.append(info)


def _store(graph: onnx.GraphProto, origin: Origin, values: np.ndarray) -> None:
    """Writes `values` (n,) into the tensor or attribute, in the encoding that the file chose."""
    if origin.attribute is None:
        _store_tensor(graph.initializer[origin.index], values)
        return
    attribute = next(a for a in graph.node[origin.index].attribute if a.name == origin.attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        _store_tensor(attribute.t, values)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = float(values[0])
    else:
        attribute.floats[:] = values.tolist()


def _store_tensor(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    if tensor.float_data:
        tensor.float_data[:] = values.tolist()
    else:
        tensor.raw_data = values.astype("<f4").tobytes()
