"""A tensor of the file that several nodes read: one param, or one for each part of the net.

Three cases look alike in a file:
  one tensor is used several times       one param, whose gradients add up
  fresh tensors of different layers      a param each: exporters merge equal biases, scales and statistics
  copies of one layer                    a param each: nn.TransformerEncoder begins with equal layers, also merged

Design:
  a) What several nodes read is one param, whatever their ops are: an embedding that is the output layer too, a layer
     that is called twice, a decoder that is its encoder transposed. An Identity in between changes nothing.
  b) A tensor of equal numbers proves nothing: its readers have a param each. They share it where the file names one
     module for both; a bias, or the statistics of a normalization, where they share the weight of their node.
  c) PyTorch's exporters also merge copies. The older one gives the others their names through Identity, the newer one
     merges up to 1,024 numbers without a trace. They are taken for copies if two modules use their tensor in the same
     way and hold nothing that differs. A tied weight leaves each of its modules a bias of its own, say; in the newer
     exporter's files it has the name of the later module.
  d) A tensor that is another one transposed was made from it, by folding: both are one param (`find_twins`).
  e) `tie` and `untie` overrule all of this: a tensor that is untied is a param for each reader. What was decided by c)
     is told (`Model.shared`).
  f) Nodes may need one matrix in different orders, as behind an image whose channels the plan has last. Then the graph
     is compiled again, and all read it in ONNX's order (`Overlap`). What overlaps in other forms is refused.

Not here: the params themselves (trace.py), the writing of params that have parted into separate initializers
(export.py), and what the file tells of modules (modules.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..core.plan import Param
from ..errors import ModelError
from .choices import Choices
from .export import DERIVED, Origin
from .items import Use, is_blank
from .modules import Modules
from .nodes import describe, op_key, refuse
from .untrained import FROZEN

FOLDED = "onnx::"  # the older exporter's names of folded tensors begin so
MERGED_UP_TO = 1024  # elements; DeduplicateInitializersPass of onnx_ir
COPY = "copy"

Group = tuple[Hashable, ...]


class Ties:
    """Decides for each reader of a tensor which others it shares a param with."""

    def __init__(self, modules: Modules, choices: Choices) -> None:
        self._modules, self._choices = modules, choices
        self._firsts: dict[tuple[int, int, int], list[Use]] = {}  # by the positions of their elements

    @property
    def is_pytorch(self) -> bool:
        return self._modules.is_pytorch

    def group(self, use: Use, index: int) -> Group | None:
        """What readers of the same elements must have in common to share a param; None if this one shares with no
        other. `index` is the node's number in the graph."""
        weight = use.weight
        names = {weight.name, *weight.copies}
        if self._choices.says("untie", names):
            return "untied", index, weight.slot
        if self._choices.says("tie", names):
            return ("tied",)
        if weight.blank:
            return self._of_blank(use)
        if weight.why == FROZEN:  # plans of frozen weights are older than rule a
            return FROZEN, op_key(use.node), weight.slot, use.role, use.layer, weight.copies, weight.layout.tobytes()
        first = self.first(weight.where)
        copy = None if first is None else self._copy(first, use)
        return () if copy is None else (COPY, copy)

    def first(self, here: np.ndarray) -> Use | None:
        """The first reader of the elements at these positions, in whatever order."""
        for other in self._firsts.get(_span(here), ()):
            there = other.weight.where
            if np.array_equal(here, there) or np.array_equal(np.sort(here, None), np.sort(there, None)):
                return other
        return None

    def add(self, use: Use) -> None:
        if self.first(use.weight.where) is None:
            self._firsts.setdefault(_span(use.weight.where), []).append(use)

    def _of_blank(self, use: Use) -> Group | None:
        module = self._modules.of(use.node) if self._modules.is_newer else ""
        if use.layer is None and not module and not use.node.name.startswith("/"):
            return None  # but the older exporter since PyTorch 1.13 names nodes after modules
        weight = use.weight
        return "blank", op_key(use.node), weight.slot, use.role, use.layer, module, weight.trainable, weight.copies

    def _copy(self, first: Use, use: Use) -> Hashable | None:
        """What tells this copy of a layer from others, if the exporter has merged it with the first reader's; else
        None."""
        weight, modules = use.weight, self._modules
        if not modules.is_pytorch or not weight.trainable or _way(first) != _way(use):
            return None
        mine, theirs = modules.of(use.node), modules.of(first.node)
        apart = mine is not None and theirs is not None and mine != theirs and modules.are_equal(mine, theirs)
        names = weight.copies ^ first.weight.copies
        if any(name.startswith(FOLDED) for name in names):
            return mine if apart else None
        if names:
            parents = [name.rpartition(".")[0] for name in names]
            return None if any(not parent or modules.owns(parent) for parent in parents) else weight.copies
        merges = modules.is_newer and weight.array.size <= MERGED_UP_TO
        return mine if merges and apart and weight.name.rpartition(".")[0] != mine else None


def _span(where: np.ndarray) -> tuple[int, int, int]:
    return (int(where.min()), int(where.max()), where.size) if where.size else (0, 0, 0)


def _way(use: Use) -> tuple[str, str, int | None]:
    return op_key(use.node), use.role, use.weight.slot


@dataclass(frozen=True)
class Twin:
    """Initializer `twin` holds the numbers of initializer `base`, transposed or not; both are numbers of tensors."""

    twin: int
    base: int
    transposed: bool


def find_twins(tensors: Mapping[int, tuple[str, np.ndarray]], choices: Choices, is_pytorch: bool = False) -> list[Twin]:
    """Of initializers, by their number: those that exporters have made from another one, and those named in `tie`.

    In a file of PyTorch, two tensors with names of modules are two parameters, even if they began as one transposed.
    """
    bins: dict[tuple[int, float, float], list[int]] = {}  # by what transposing a matrix leaves in place
    for index, (name, array) in tensors.items():
        if array.size and not choices.says("untie", [name]):
            named = choices.says("tie", [name])
            if named or (array.ndim == 2 and min(array.shape) > 1 and not is_blank(array)):
                bins.setdefault((array.size, float(array.flat[0]), float(array.flat[-1])), []).append(index)
    found: dict[int, Twin] = {}
    for together in bins.values():
        for one, other in combinations(sorted(together, key=lambda index: (_is_derived(tensors[index][0]), index)), 2):
            how = _likeness(tensors[one], tensors[other], choices, is_pytorch)
            if how is not None and one not in found and other not in found:
                found[other] = Twin(other, one, how)
    return list(found.values())


def _is_derived(name: str) -> int:
    """0 for the name of a module's tensor, 1 for another name, 2 for one that an exporter has made up."""
    return 2 if name.startswith((FOLDED, DERIVED)) else int("." not in name)


def _likeness(
    one: tuple[str, np.ndarray], other: tuple[str, np.ndarray], choices: Choices, is_pytorch: bool
) -> bool | None:
    """Whether the tensors are one param, transposed (True) or straight (False); None if they are not."""
    (name, a), (second, b) = one, other
    ranks = _is_derived(name), _is_derived(second)
    same = a.shape == b.shape and np.array_equal(a, b)
    turned = a.ndim == b.ndim == 2 and np.array_equal(a, b.T)
    named = choices.says("tie", [name]) and choices.says("tie", [second])
    if same:
        return False if named or (2 in ranks and ranks != (2, 2)) else None
    return True if turned and (named or not is_pytorch or ranks != (0, 0)) else None


class Overlap(ModelError):
    """Two nodes need the same elements in orders that no param has. `homes`: their tensors, by Origin.offset."""

    def __init__(self, text: str, homes: frozenset[int]) -> None:
        super().__init__(text)
        self.homes = homes


def refuse_overlaps(
    uses: Mapping[int, Use], params: Sequence[Param], origins: Sequence[Origin], owned: Sequence[int]
) -> None:
    """Raises Overlap if two of the params `owned` by the plan hold the same elements and should be one."""
    for home, first, second in _meeting(uses, origins, sorted(owned)):
        one, other = uses[first], uses[second]
        trains = params[first].trainable or params[second].trainable
        if trains and one.group == other.group and np.isin(one.weight.where, other.weight.where).any():
            name = other.weight.name or one.weight.name
            advice = f": train a copy for each with untie=[{name!r}], or none with freeze=[{name!r}]" if name else ""
            known = f"{other.role} {name!r}" if name else other.role
            text = f"its {known} is also the {one.role} of {describe(one.node)}, which needs it in another form{advice}"
            raise Overlap(str(refuse(other.node, text)), frozenset([origins[home].offset]))


def _meeting(
    uses: Mapping[int, Use], origins: Sequence[Origin], owned: Sequence[int]
) -> Iterator[tuple[int, int, int]]:
    """A tensor, and a pair of params with elements in it; without params that share with no other."""
    starts = [origin.offset for origin in origins]
    readers: dict[int, list[int]] = {}
    for param in owned:
        if param not in uses or uses[param].group is None or uses[param].weight.blank:
            continue
        for home in np.unique(np.searchsorted(starts, uses[param].weight.where, "right") - 1):
            readers.setdefault(int(home), []).append(param)
    for home, together in readers.items():
        yield from ((home, *pair) for pair in combinations(together, 2))
