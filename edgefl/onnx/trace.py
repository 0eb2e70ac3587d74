"""The state of a walk over an ONNX graph: the plan so far, and where its params come from.

Not here: what a tensor of the graph is (items.py), what an op means (ops/table.py, folds.py), and the walk
itself (compiler.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from msgspec import structs

from ..core.plan import Param
from ..core.skeleton import scaled
from .choices import Choices, called
from .export import Binding, Copied, Origin, Place, Read
from .items import Const, Item, Use, Value, Weight
from .nodes import describe, label, refuse
from .sharing import COPY, Ties
from .untrained import COMPUTED, FROZEN, GRAPH, LEADING, REPEATED

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
    ties: Ties  # which readers of a tensor share a param
    choices: Choices
    plain: frozenset[int]  # where tensors begin in the file vector that are read in ONNX's order (sharing.py)
    only: Sequence[str] | None = None  # names and patterns of initializers that are trained; None: all
    shapes: list[tuple[int, ...]] = field(default_factory=list)  # of every value, per sample
    drafts: list[Draft] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)  # of each param, in its shape
    bindings: list[Binding] = field(default_factory=list)
    uses: dict[int, Use] = field(default_factory=dict)  # of each param that the file stores
    keys: dict[Any, int] = field(default_factory=dict)  # what readers of a param have in common -> the param
    why: dict[int, str] = field(default_factory=dict)  # a param is not trained (untrained.py)
    origins: list[Origin] = field(default_factory=list)
    named: dict[int, str] = field(default_factory=dict)  # where an initializer begins in the file vector -> its name
    twins: list[Copied] = field(default_factory=list)
    weighted: set[int] = field(default_factory=set)  # values that depend on a weight, frozen or not
    arranged: dict[Any, int] = field(default_factory=dict)  # see arrange.py
    masks: dict[Any, int] = field(default_factory=dict)  # see masks.py
    hiding: set[int] = field(default_factory=set)  # values that are LOWEST where the input says so, up to a softmax
    unwilling: dict[str, tuple[str, str]] = field(default_factory=dict)  # of `train`: what can't be, and why
    computed_from: dict[int, onnx.NodeProto] = field(default_factory=dict)  # see stale.py
    fixed: set[int] = field(default_factory=set)  # see stale.py
    bound: set[tuple[int, int | None]] = field(default_factory=set)  # inputs, by node and slot, that are params
    index: int = 0
    alone: bool = False  # one sample, without an axis of its own (single.py)
    homes: bool = False  # and the first axis of an output is the sample's, if it is of size 1

    def stored(self, array: np.ndarray, attribute: str | None, index: int, name: str = "") -> Const:
        """A tensor that the file stores, in initializer or node `index`. Only float32 can be written back."""
        if array.dtype != np.float32:
            return Const(array, None, name)
        offset = self.origins[-1].offset + self.origins[-1].values.size if self.origins else 0
        self.origins.append(Origin(index, attribute, array.ravel(), offset))
        if attribute is None:
            self.named[offset] = name
        return Const(array, offset + np.arange(array.size).reshape(array.shape), name)

    def is_initializer(self, item: Const) -> bool:
        """Whether all its numbers are in initializers, and none in a Constant node or an attribute."""
        if item.where is None:
            return False
        return all(home.attribute is None for home in self._homes(item.where))

    def is_plain(self, weight: Weight) -> bool:
        """Whether the plan is to have this weight's elements in the order in which ONNX has them."""
        return bool(self.plain) and not self.plain.isdisjoint(home.offset for home in self._homes(weight.where))

    def _homes(self, where: np.ndarray) -> list[Origin]:
        """The tensors of the file that hold these elements."""
        starts = np.array([origin.offset for origin in self.origins])
        return [self.origins[home] for home in np.unique(np.searchsorted(starts, where, "right") - 1)]

    def homes_of(self, item: Const) -> frozenset[int]:
        """Where the tensors of the file begin that hold its elements."""
        return frozenset() if item.where is None else frozenset(home.offset for home in self._homes(item.where))

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
        why = FROZEN if self.freezes(item) else ""
        return Weight(item.array, item.where, layout, item.name, slot, item.array.shape, not why, item.copies, why)

    def freezes(self, item: Const) -> bool:
        """Whether the caller asked not to train this tensor."""
        name = item.alias or item.name
        if self.only is not None:
            return not any(name == only or called(name, only) for only in self.only)
        return self.choices.says("freeze", [name]) and not self.choices.meaning("train", [name])

    def wants(self, item: Const, node: onnx.NodeProto, role: str) -> bool:
        """Whether the caller asked to train this tensor, which else would not be. What is no initializer has no name in
        the file: it goes by that of its param, in full."""
        own, fallback = item.alias or item.name, f"{label(node)}.{role}"
        if not own and fallback in self.choices.train:
            return self._heed([fallback], COMPUTED if item.where is None else "")
        return item.where is not None and bool(self.choices.meaning("train", [own]))

    def _heed(self, names: Sequence[str], why: str) -> bool:
        """Notes what `train` says of a tensor that trains, or does not, and why."""
        if not why:
            return self.choices.says("train", names)
        self.unwilling |= {pattern: (names[0], why) for pattern in self.choices.meaning("train", names)}
        return False

    def is_read(self, where: np.ndarray) -> bool:
        """Whether another node reads these elements already, in any order."""
        return self.ties.first(where) is not None

    def held(self, node: onnx.NodeProto, role: str, weight: Weight, scale: float = 1.0) -> int | None:
        """The param that another node already reads with these elements in this order, or None."""
        use = Use(node, role, weight, None)
        return self.keys.get(_key(replace(use, group=self.ties.group(use, self.index)), scale))

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

        A node that reads the same elements in the same order gets the same Param (sharing.py). `layer` is the Param
        that the node is known by: a fresh bias is shared only where the weight is.
        """
        self._heed([weight.name, *weight.copies], "" if weight.trainable else weight.why)
        use = Use(node, role, weight, layer)
        use = replace(use, group=self.ties.group(use, self.index))
        key = _key(use, scale)
        if key in self.keys:
            return self._shared(self.keys[key], use)
        array = weight.array if scale == 1.0 else scaled(weight.array, scale)
        places = [Place(weight.where.ravel(), scale)]
        if mirror is not None:
            places.append(Place(mirror.ravel(), -scale))
        name = self._name(weight.name, f"{label(node)}.{role}")
        apart = use.group is not None and use.group[:1] == (COPY,)
        binding = Binding(tuple(places), (self._read(weight),), named=name == weight.name, apart=apart)
        index = self._register(Param(name, list(array.shape), weight.trainable), array, binding)
        self.uses[index], self.why[index] = use, weight.why
        self.ties.add(use)
        if key is not None:
            self.keys[key] = index
        return index

    def reads(self, slot: int) -> bool:
        """Whether this input of the node being looked at is a param, or a part of one."""
        return (self.index, slot) in self.bound

    def why_repeated(self, node: onnx.NodeProto, role: str, item: Const, count: int) -> str:
        """Why numbers that are the same in each sample are not trained, "" if they are; the file stores `count` of
        each."""
        if count > 1:
            return REPEATED
        return "" if self.is_initializer(item) or self.wants(item, node, role) else GRAPH

    def _read(self, weight: Weight) -> Read:
        self.bound.add((self.index, weight.slot))
        return Read(self.index, weight.slot, weight.slot_shape, weight.layout.ravel())

    def _shared(self, index: int, use: Use) -> int:
        """Param `index`, which the node being looked at reads too. It trains if one of its nodes trains it, unless it
        is frozen or scales the input somewhere."""
        binding, param, weight = self.bindings[index], self.params[index], use.weight
        self.bindings[index] = replace(binding, reads=(*binding.reads, self._read(weight)))
        reasons = [self.why[index] if not param.trainable else "", weight.why if not weight.trainable else ""]
        self.why[index] = next(
            (why for why in (FROZEN, LEADING) if why in reasons), "" if "" in reasons else reasons[0]
        )
        self.params[index] = structs.replace(param, trainable=not self.why[index])
        return index

    def turn(self, index: int) -> None:
        """Holds a matrix that only dense nodes read transposed, for a node that needs it so."""
        param, binding = self.params[index], self.bindings[index]
        shape = tuple(param.shape)

        def turned(array: np.ndarray) -> np.ndarray:
            return np.transpose(array.reshape(shape)).ravel()

        self.params[index] = structs.replace(param, shape=param.shape[::-1])
        self.values[index] = np.ascontiguousarray(self.values[index].T)
        self.bindings[index] = replace(
            binding,
            places=tuple(replace(place, where=turned(place.where)) for place in binding.places),
            reads=tuple(replace(read, layout=turned(read.layout)) for read in binding.reads),
        )
        use = self.uses[index]
        self.uses[index] = replace(use, weight=use.weight.map(np.transpose))
        self.keys = {key: at for key, at in self.keys.items() if at != index}
        self.keys[_key(self.uses[index], binding.places[0].scale)] = index
        for draft in self.drafts:
            if draft.params[:1] == [index]:
                draft.ints = [] if draft.ints else [1]

    def ops_of(self, index: int) -> set[str]:
        """The ops of the plan that read a param."""
        return {draft.op for draft in self.drafts if index in draft.params}

    def shape_of(self, index: int) -> tuple[int, ...]:
        """A param's shape where the file's nodes read it."""
        return self.bindings[index].reads[0].shape

    def constant(self, node: onnx.NodeProto, role: str, array: np.ndarray, why: str = "") -> int:
        """Registers numbers that the graph computes with but that are not trained. They stay in the file. `why` is for
        those that the file has, and not the op alone."""
        array = np.asarray(array, np.float32)
        if not np.isfinite(array).all():
            raise refuse(node, f"its {role} holds NaN or Inf: use finite numbers (a mask of -1e9, say)")
        name = self._name("", f"{label(node)}.{role}")
        binding = Binding((), (Read(self.index, None, array.shape, np.arange(array.size)),))
        index = self._register(Param(name, list(array.shape), False), array, binding)
        self.why[index] = why
        return index

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
        if op != "softmax" and not self.hiding.isdisjoint(inputs):
            self.hiding.add(number)
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


def _key(use: Use, scale: float) -> Any:
    """What the readers of one param have in common; None if this one shares with no other."""
    if use.group is None:
        return None
    return use.group, scale, use.weight.where.shape, use.weight.where.tobytes()
