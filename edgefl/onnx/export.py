"""ONNX out: writes trained params into the ONNX file that they came from.

Design:
  a) Every float32 number that a file stores has a position in one imaginary vector, the file vector, in which
     the file's tensors (`Origin`) lie one after another.
  b) A `Binding` has the positions and the scale of the elements of one Param.
  c) An element that training did not change keeps its bits; a file without changes keeps its bytes.
  d) Two Params may start from the same tensor (sharing.py). Once they differ, the first keeps the tensor and the
     other gets an initializer of its own, which its nodes read from then on, or one for each form that they read it in.
     Params that share an input of a node, as the two biases of an LSTM do, stay together.
  e) A number that the graph computes from others has no position. It is not trained and stays as it is.
  f) A tensor that an exporter has made from another one (`Copied`) follows it.

Not here: which param comes from where (compiler.py), and files on disk (model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

INITIALIZERS_ARE_INPUTS_BEFORE_IR = 4
DERIVED = "edgefl::"  # before the name of an initializer that holds another one in a second form


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
class Read:
    """Input `slot` of node `node`, of this shape, which reads a param; slot None: an attribute of it."""

    node: int
    slot: int | None
    shape: tuple[int, ...]
    layout: np.ndarray  # (size,) int64: element i of the param is element layout[i] of that input


@dataclass(frozen=True)
class Binding:
    """How one Param is written back, and the nodes that read it."""

    places: tuple[Place, ...]
    reads: tuple[Read, ...]
    named: bool = (
        False  # the param is called as its tensor, which it keeps if others that the tensor holds part with it
    )
    apart: bool = False  # gets an initializer of its own in any changed file, even while it is equal to another param

    @property
    def size(self) -> int:
        return int(self.reads[0].layout.size)


@dataclass(frozen=True)
class Copied:
    """The numbers at `place` of the file vector are those at `where`."""

    place: slice
    where: np.ndarray  # (size,) int64


def write_params(
    source: bytes,
    origins: Sequence[Origin],
    bindings: Sequence[Binding],
    names: Sequence[str],
    copied: Sequence[Copied] = (),
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
        clash = any((taken[where] & (written[where] != values)).any() for where, values in changes)
        if clash or bindings[members[0]].apart:
            for number, form in enumerate(forms_of(bindings, members)):
                tensor = np.empty(sum(bindings[at].size for at in members), np.float32)
                for read, (_, values) in zip(form[0], changes, strict=True):
                    tensor[read.layout] = values
                name = names[members[0]] if number == 0 else f"{DERIVED}{names[members[0]]}"
                _split(proto, [reads[0] for reads in form], name, tensor)
            continue
        for where, values in changes:
            written[where] = values
            taken[where] = True
    for copy in copied:
        written[copy.place] = written[copy.where]
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
        self.starts = np.cumsum([0, *(binding.size for binding in bindings)])

    def changes(self, at: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions in the file vector and their new values, for each place of binding number `at`."""
        span = slice(self.starts[at], self.starts[at + 1])
        found = []
        for place in self.bindings[at].places:
            moved = (self.after[span].astype(np.float64) / place.scale).astype(np.float32)
            found.append((place.where, np.where(self.kept[span], self.loaded[place.where], moved)))
        return found


def input_groups(bindings: Sequence[Binding]) -> list[list[int]]:
    """The numbers of the bindings, grouped by the node input that they make up; those first that keep their tensor."""
    groups: dict[tuple[tuple[tuple[int, int | None], ...], int | None], list[int]] = {}
    for at, binding in enumerate(bindings):
        inputs = tuple((read.node, read.slot) for read in binding.reads)
        groups.setdefault((inputs, at if inputs[0][1] is None else None), []).append(at)
    return sorted(groups.values(), key=lambda members: not bindings[members[0]].named)


def forms_of(bindings: Sequence[Binding], members: Sequence[int]) -> list[list[list[Read]]]:
    """The forms in which nodes read the input that the bindings `members` make up: of each form the inputs, and of each
    input the reads of the members."""
    forms: dict[tuple[tuple[int, ...], bytes], list[list[Read]]] = {}
    for reads in zip(*(bindings[at].reads for at in members), strict=True):
        layout = b"".join(read.layout.tobytes() for read in reads)
        forms.setdefault((reads[0].shape, layout), []).append(list(reads))
    return list(forms.values())


def _split(proto: onnx.ModelProto, reads: Sequence[Read], name: str, tensor: np.ndarray) -> None:
    """Gives the inputs `reads` an initializer of their own: `tensor`, in the order of the inputs it replaces."""
    taken = {initializer.name for initializer in proto.graph.initializer}
    base, number = name, 1
    while name in taken:
        number += 1
        name = f"{base}.{number}"
    proto.graph.initializer.append(numpy_helper.from_array(tensor.reshape(reads[0].shape), name))
    for read in reads:
        assert read.slot is not None, "an attribute belongs to one node alone"
        proto.graph.node[read.node].input[read.slot] = name
    if proto.ir_version < INITIALIZERS_ARE_INPUTS_BEFORE_IR:
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, reads[0].shape)
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
