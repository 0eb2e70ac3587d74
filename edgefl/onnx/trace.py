"""The state of a walk over an ONNX graph: the plan so far, and where its params come from.

Not here: what a tensor of the graph is (items.py), what an op means (ops/table.py, folds.py), and the walk
itself (compiler.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
import onnx

from ..core.plan import Param
from ..core.skeleton import scaled
from .export import Binding, Origin, Place
from .items import Const, Item, Use, Value, Weight
from .nodes import describe, label, refuse
from .sharing import identity, refuse_doubtful

MAX_AXES = 6  # of a sample, a param or any other tensor of a plan
LARGEST_VALUE = 2**30  # elements of a sample; the core's limit


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
    taken_names: set[str]  # names in the graph, which no new initializer may have
    freeze: Sequence[str] = ()  # patterns of initializers that are not to be trained
    only: Sequence[str] | None = None  # names and patterns of those that are; None: all
    shapes: list[tuple[int, ...]] = field(default_factory=list)  # of every value, per sample
    drafts: list[Draft] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)  # of each param, in its shape
    bindings: list[Binding] = field(default_factory=list)
    uses: dict[int, Use] = field(default_factory=dict)  # of each param that the file stores
    identities: dict[Any, int] = field(default_factory=dict)  # see sharing.py
    origins: list[Origin] = field(default_factory=list)
    weighted: set[int] = field(default_factory=set)  # values that depend on a weight, frozen or not
    arranged: dict[Any, int] = field(default_factory=dict)  # see arrange.py
    masks: dict[Any, int] = field(default_factory=dict)  # see masks.py
    frozen: set[str] = field(default_factory=set)  # the patterns that matched
    index: int = 0

    def stored(self, array: np.ndarray, attribute: str | None, index: int, name: str = "") -> Const:
        """A tensor that the file stores, in initializer or node `index`. Only float32 can be written back."""
        if array.dtype != np.float32:
            return Const(array, None, name)
        offset = self.origins[-1].offset + self.origins[-1].values.size if self.origins else 0
        self.origins.append(Origin(index, attribute, array.ravel(), offset))
        return Const(array, offset + np.arange(array.size).reshape(array.shape), name)

    def is_initializer(self, item: Const) -> bool:
        """Whether all its numbers are in initializers, and none in a Constant node or an attribute."""
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
        return Weight(item.array, item.where, layout, item.name, slot, item.array.shape, not frozen, item.copies)

    def freezes(self, item: Const) -> bool:
        """Whether the caller asked not to train this tensor."""
        name = item.alias or item.name
        if self.only is not None and not any(name == only or called(name, only) for only in self.only):
            return True
        found = [pattern for pattern in self.freeze if called(name, pattern)]
        self.frozen.update(found)
        return bool(found)

    def param(
        self,
        node: onnx.NodeProto,
        role: str,
        weight: Weight,
        *,
        layer: int | None = None,
        scale: float = 1.0,
        mirror: np.ndarray | None = None,
    ) -> int:
        """Registers `scale * weight` as a Param and returns its index. -weight is written to the positions `mirror`.

        A node of the same op that reads the same elements in the same input in the same way gets the same Param
        (sharing.py). `layer` is the Param that the node is known by: a bias is shared only where the weight is.
        """
        use = Use(node, role, weight, layer)
        same = identity(use, weight.trainable, scale)
        if same in self.identities:
            return self._shared(self.identities[same], use)
        array = weight.array if scale == 1.0 else scaled(weight.array, scale)
        places = [Place(weight.where.ravel(), scale)]
        if mirror is not None:
            places.append(Place(mirror.ravel(), -scale))
        name = self._name(weight.name, f"{label(node)}.{role}")
        binding = Binding(tuple(places), (self.index,), weight.slot, weight.slot_shape, weight.layout.ravel())
        index = self._register(Param(name, list(array.shape), weight.trainable), array, binding)
        self.uses[index] = use
        if same is not None:
            self.identities[same] = index
        return index

    def _shared(self, index: int, use: Use) -> int:
        """Param `index`, which the node being looked at reads too."""
        if self.params[index].trainable:
            refuse_doubtful(self.uses[index], use)
        binding = self.bindings[index]
        self.bindings[index] = replace(binding, nodes=(*binding.nodes, self.index))
        return index

    def constant(self, node: onnx.NodeProto, role: str, array: np.ndarray) -> int:
        """Registers numbers that the graph computes with but that are not trained. They stay in the file."""
        array = np.asarray(array, np.float32)
        if not np.isfinite(array).all():
            raise refuse(node, f"its {role} holds NaN or Inf: use finite numbers (a mask of -1e9, say)")
        name = self._name("", f"{label(node)}.{role}")
        binding = Binding((), (self.index,), None, array.shape, np.arange(array.size))
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
