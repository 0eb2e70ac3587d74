"""What a tensor of the ONNX graph is while the graph is walked, and how a node reads a weight.

Const    known now: an initializer, or something folded from initializers
Value    computed from the input: a value of the plan, and the layout that ONNX sees it in
Readout  computed from a Value for the reader (label, class probabilities): kept in the file, not in the plan
Parts    a sequence of Values
Condition  whether a Value is above 0, or is not
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from .layout import Layout
from .nodes import attributes, refuse


@dataclass(frozen=True)
class Const:
    """A tensor known now. `where` has its shape and holds each element's position in the file vector (see export.py),
    or is None if trained values could not be written back. `name` is the initializer's, or "". `alias` is the name that
    an Identity gives it, and `copies` are all such names of the tensors that it is made of."""

    array: np.ndarray
    where: np.ndarray | None = None
    name: str = ""
    alias: str = ""
    copies: frozenset[str] = frozenset()
    made_of: frozenset[int] = frozenset()  # where stored tensors begin that its numbers were computed from (stale.py)

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Const:
        """Applies a function that only moves elements, to the values and to their positions."""
        return replace(self, array=move(self.array), where=None if self.where is None else move(self.where))


@dataclass(frozen=True)
class Value:
    """Value `number` of the plan, which the file calls `tensor`. `layout` says where its elements are."""

    number: int
    layout: Layout
    tensor: str
    tokens: bool = False  # whole numbers that index an embedding
    # Where ONNX has minus infinity; broadcasts to the shape (masks.py). None: nowhere.
    hidden: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Readout:
    value: Value


@dataclass(frozen=True)
class Parts:
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Condition:
    value: Value
    negated: bool = False


Item = Const | Value | Readout | Parts | Condition
Handler = Callable[..., Item | tuple[Item, ...]]  # of an ONNX op: ops/table.py


@dataclass(frozen=True)
class Weight:
    """A Const that is to become a Param. `layout` has its shape and holds positions in the node input that reads it."""

    array: np.ndarray
    where: np.ndarray
    layout: np.ndarray
    name: str
    slot: int | None
    slot_shape: tuple[int, ...]
    trainable: bool = True
    copies: frozenset[str] = frozenset()
    why: str = ""  # it is not trained; a reason of untrained.py

    @property
    def blank(self) -> bool:
        return is_blank(self.array)

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Weight:
        return replace(self, array=move(self.array), where=move(self.where), layout=move(self.layout))


@dataclass(frozen=True)
class Use:
    """The first node that reads a Param, and as what; `layer` is the Param that the node is known by (sharing.py)."""

    node: onnx.NodeProto
    role: str
    weight: Weight
    layer: int | None
    group: tuple[Hashable, ...] | None = None  # see sharing.py


def is_blank(array: np.ndarray) -> bool:
    """Whether all numbers are equal, as those of a fresh bias or scale are."""
    first = array.flat[0] if array.size else 0
    return bool((array == first).all()) and (array.size > 1 or first in (0, 1))


def value_of(node: onnx.NodeProto, item: Item | None, tokens: bool = False, hidden: bool = False) -> Value:
    """The plan value that `node` reads; raises ModelError for a constant, a label or the like."""
    if isinstance(item, Value):
        if item.hidden is not None and not hidden:
            raise refuse(node, "it computes with minus infinity: mask the scores just before their softmax")
        if item.tokens and not tokens:
            raise refuse(node, "it computes with whole numbers: cast them to float, or look them up with Gather")
        return item
    if item is None:
        raise refuse(node, "its first input is missing: export the model again")
    kinds: dict[type[Item], str] = {
        Condition: "a condition",
        Const: "a constant",
        Parts: "a sequence",
        Readout: "a label or class probability",
    }
    read = kinds[type(item)]
    raise refuse(node, f"it reads {read} where EdgeFL expects a value to train through: keep it out of the graph")


def axes_of(node: onnx.NodeProto, axes: Const | None) -> tuple[int, ...] | None:
    """Squeeze's and Unsqueeze's axes: an input since opset 13, an attribute before."""
    given = attributes(node).get("axes") if axes is None else axes.array.ravel().tolist()
    return None if given is None else tuple(int(axis) for axis in given)
