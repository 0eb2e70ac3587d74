"""What is known while an ONNX graph is walked: its tensors, and the plan as far as it has come.

A tensor of the graph is one of three things here:
  Const    known now: an initializer, or something folded from initializers
  Value    computed from the input: a value of the plan, and the layout that ONNX sees it in
  Readout  computed from a Value for the reader (label, class probabilities): kept in the file, not in the plan

Not here: what an op means (ops/table.py, folds.py) and the walk itself (compiler.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..core.plan import Param
from ..errors import ModelError
from .export import Binding, Origin, Place
from .layout import Layout

MAX_AXES = 4  # of a sample, as of everything in a plan
LARGEST_VALUE = 2**30  # elements of a sample that the core takes


@dataclass(frozen=True)
class Const:
    """A tensor known now. `where` has its shape: each element's position in the file vector (see export.py);
    None if trained values could not be written back. `name` is the initializer's, "" where there is none; `alias`
    what the file calls it where an exporter has merged equal initializers."""

    array: np.ndarray
    where: np.ndarray | None = None
    name: str = ""
    alias: str = ""

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Const:
        """Applies a function that only moves elements, to the values and to the way back alike."""
        return replace(self, array=move(self.array), where=None if self.where is None else move(self.where))


@dataclass(frozen=True)
class Value:
    """Value `number` of the plan, known in the file as `tensor`, its elements where `layout` says."""

    number: int
    layout: Layout
    tensor: str
    tokens: bool = False  # whole numbers that index an embedding


@dataclass(frozen=True)
class Readout:
    value: Value


Item = Const | Value | Readout


@dataclass(frozen=True)
class Weight:
    """A Const about to become a Param; `layout` has its shape: positions in the node input that reads it."""

    array: np.ndarray
    where: np.ndarray
    layout: np.ndarray
    name: str
    slot: int | None
    slot_shape: tuple[int, ...]
    trainable: bool = True

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Weight:
        return replace(self, array=move(self.array), where=move(self.where), layout=move(self.layout))


@dataclass
class Draft:
    """A node of the plan to be. `onnx_node` names its origin; `loss` is what its ONNX op says about the loss."""

    op: str
    inputs: list[int]
    params: list[int]
    ints: list[int]
    floats: list[float]
    onnx_node: str
    loss: str | None = None


@dataclass
class Trace:
    """The plan so far, and the node being looked at (number `index` of the graph)."""

    opset: int
    samples: int  # in ONNX shapes: the number that the file fixes, or OPEN
    readers: dict[str, int]  # tensor -> how many nodes and graph outputs read it
    taken_names: set[str]  # tensors of the graph, which no new initializer may be called by
    freeze: Sequence[str] = ()  # patterns of initializers that are not to be trained
    shapes: list[tuple[int, ...]] = field(default_factory=list)  # of every value, per sample
    drafts: list[Draft] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)  # of each param, in its shape
    bindings: list[Binding] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    weighted: set[int] = field(default_factory=set)  # values that some weight, frozen or not, has gone into
    arranged: dict[Any, int] = field(default_factory=dict)  # see arrange.py
    frozen: set[str] = field(default_factory=set)  # the patterns that something was called by
    index: int = 0

    def stored(self, array: np.ndarray, attribute: str | None, index: int, name: str = "") -> Const:
        """A tensor that the file stores: initializer or node `index`. Only float32 has a way back."""
        if array.dtype != np.float32:
            return Const(array, None, name)
        offset = self.origins[-1].offset + self.origins[-1].values.size if self.origins else 0
        self.origins.append(Origin(index, attribute, array.ravel(), offset))
        return Const(array, offset + np.arange(array.size).reshape(array.shape), name)

    def is_initializer(self, item: Const) -> bool:
        """Whether all its numbers lie in initializers, none in a Constant node or an attribute."""
        if item.where is None:
            return False
        starts = np.array([origin.offset for origin in self.origins])
        homes = np.unique(np.searchsorted(starts, item.where, "right") - 1)
        return all(self.origins[home].attribute is None for home in homes)

    def weight(self, node: onnx.NodeProto, role: str, item: Item | None, slot: int | None) -> Weight:
        """The trainable float32 constant that `node` reads; raises ModelError if it is anything else."""
        if not isinstance(item, Const):
            raise refuse(node, f"its {role} is computed from the input, which EdgeFL does not train")
        known_as = f"{role} {item.name!r}" if item.name else role
        if item.array.dtype != np.float32:
            raise refuse(node, f"its {known_as} is {item.array.dtype}: export the model in float32")
        if item.where is None:
            raise refuse(node, f"its {known_as} is computed from other constants: export with constants folded")
        if not np.isfinite(item.array).all():
            raise refuse(node, f"its {known_as} holds NaN or Inf: export the model again from finite weights")
        layout = np.arange(item.array.size).reshape(item.array.shape)
        frozen = self.freezes(item)
        return Weight(item.array, item.where, layout, item.name, slot, item.array.shape, not frozen)

    def freezes(self, item: Const) -> bool:
        """Whether the caller asked to leave this one alone."""
        name = item.alias or item.name
        found = [pattern for pattern in self.freeze if called(name, pattern)]
        self.frozen.update(found)
        return bool(found)

    def param(
        self, node: onnx.NodeProto, role: str, weight: Weight, scale: float = 1.0, mirror: np.ndarray | None = None
    ) -> int:
        """Registers `scale * weight` as a Param and returns its index; `mirror`: where -weight is to be kept too."""
        array = weight.array if scale == 1.0 else (weight.array * np.float64(scale)).astype(np.float32)
        places = [Place(weight.where.ravel(), scale)]
        if mirror is not None:
            places.append(Place(mirror.ravel(), -scale))
        name = self._name(weight.name, f"{label(node)}.{role}")
        binding = Binding(tuple(places), self.index, weight.slot, weight.slot_shape, weight.layout.ravel())
        return self._register(Param(name, list(array.shape), weight.trainable), array, binding)

    def constant(self, node: onnx.NodeProto, role: str, array: np.ndarray) -> int:
        """Registers numbers that the graph computes with but nobody trains: they stay in the file as they are."""
        array = np.asarray(array, np.float32)
        if not np.isfinite(array).all():
            raise refuse(node, f"its {role} holds NaN or Inf: use finite numbers (a mask of -1e9, say)")
        name = self._name("", f"{label(node)}.{role}")
        binding = Binding((), self.index, None, array.shape, np.arange(array.size))
        return self._register(Param(name, list(array.shape), False), array, binding)

    def _register(self, param: Param, array: np.ndarray, binding: Binding) -> int:
        self.params.append(param)
        self.values.append(np.ascontiguousarray(array).reshape(array.shape))
        self.bindings.append(binding)
        return len(self.params) - 1

    def append(
        self,
        node: onnx.NodeProto,
        op: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        *,
        params: Sequence[int] = (),
        ints: Sequence[int] = (),
        floats: Sequence[float] = (),
        loss: str | None = None,
    ) -> int:
        """Appends op(inputs) to the plan and returns the number of its value, which has the per-sample `shape`."""
        if len(shape) > MAX_AXES:
            raise refuse(node, f"makes samples of {len(shape)} axes {tuple(shape)}: use at most {MAX_AXES}")
        if not 0 < prod(shape) <= LARGEST_VALUE:
            raise refuse(node, f"makes samples of shape {tuple(shape)}: use at most {LARGEST_VALUE} elements")
        draft = Draft(op, list(inputs), list(params), [int(i) for i in ints], [float(f) for f in floats], "", loss)
        draft.onnx_node = describe(node)
        self.drafts.append(draft)
        self.shapes.append(tuple(int(size) for size in shape))
        number = len(self.drafts)
        if not self.weighted.isdisjoint(inputs) or any(self.bindings[param].places for param in params):
            self.weighted.add(number)
        return number

    def maker(self, value: Value) -> Draft | None:
        """The node that computes the value; None for the input."""
        return self.drafts[value.number - 1] if value.number else None

    def _name(self, own: str, fallback: str) -> str:
        used = {param.name for param in self.params}
        if own and own not in used:
            return own
        base, number, name = own or fallback, 1, own or fallback
        while name in used or name in self.taken_names:
            number += 1
            name = f"{base}.{number}"
        return name


def called(name: str, pattern: str) -> bool:
    """Whether a pattern (a glob, a name, or the start of a name up to a dot or slash) means this initializer."""
    return bool(name) and (fnmatchcase(name, pattern) or name.startswith((f"{pattern}.", f"{pattern}/")))


def label(node: onnx.NodeProto) -> str:
    """The node's name, or that of its first output: exporters often leave names out."""
    return node.name or (node.output[0] if node.output else "")


def op_key(node: onnx.NodeProto) -> str:
    """The op's name, with its domain unless that is ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def describe(node: onnx.NodeProto) -> str:
    return f"node {label(node)!r} ({op_key(node)})"


def refuse(node: onnx.NodeProto, why: str) -> ModelError:
    """The error for a node that can't be trained; `why` ends with what to do."""
    return ModelError(f"{describe(node)}: {why}")


def value_of(node: onnx.NodeProto, item: Item | None, tokens: bool = False) -> Value:
    """The plan value that `node` reads; raises ModelError for a constant, a label or the like."""
    if isinstance(item, Value):
        if item.tokens and not tokens:
            raise refuse(node, "it computes with whole numbers: cast them to float, or look them up with Gather")
        return item
    if item is None:
        raise refuse(node, "its first input is missing: export the model again")
    kind = "a constant" if isinstance(item, Const) else "a label or class probability"
    raise refuse(node, f"it reads {kind} where EdgeFL expects a value to train through: keep it out of the graph")


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values; strings decoded."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def to_array(tensor: onnx.TensorProto, what: str) -> np.ndarray:
    """The tensor as an array; raises ModelError if its bytes lie in another file or do not fill its shape."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:  # no path out of a model file is ever opened
        raise ModelError(f"{what} lies in another file: save the model as one file (save_as_external_data=False)")
    try:
        return np.array(numpy_helper.to_array(tensor))
    except Exception as error:  # onnx raises whatever its decoder of that type happens to
        raise ModelError(f"{what} can't be read: {error}; export the model again") from None
