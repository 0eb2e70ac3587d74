"""A tensor of the file that several nodes read: one param, a param for each layer, or a model that is refused.

Three cases look alike in a file:
  one layer is used several times        one param, whose gradients add up
  equal tensors of different layers      a param each; exporters merge fresh biases, scales and statistics
  a weight serves in different ways      refused by name: an embedding that is the output layer too, say

Design:
  a) Nodes of one op that read the same elements in the same input, in the same order, are one layer and share their
     param (`identity`). Rules b) to e) are the exceptions.
  b) A bias is shared if the weight of its node is shared. So are the shift and the statistics of a normalization with
     its scale.
  c) An Identity in between means different layers: PyTorch's older exporter merges equal tensors and keeps their names
     this way. If the name is one that it gives to folded tensors ("onnx::..."), it proves nothing, and the model is
     refused.
  d) A tensor of equal numbers, such as a fresh scale, proves nothing. Its readers are different layers, unless the file
     names their module.
  e) PyTorch's newer exporter merges equal tensors of up to 1,024 elements without a trace. Readers in different modules
     are one layer if the tensor has the name of the later module, as tied weights have; otherwise the model is refused.
  f) Any other overlap with a trained param is refused.
  g) A folded tensor that equals another weight, straight or transposed, is refused: the older exporter writes an output
     layer that is tied to an embedding like this.

Not here: the params themselves (trace.py), and the writing of merged params into separate initializers (export.py).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import onnx

from ..core.plan import Param
from .export import Origin
from .items import Use
from .nodes import describe, op_key, refuse

FOLDED = "onnx::"  # the older exporter's names of folded tensors begin so
SCOPES = "pkg.torch.onnx.name_scopes"  # the newer exporter's list: the modules around a node, then the node
UNFOLD = (
    "and the file does not tell whether they are one layer: "
    "export with training=TrainingMode.PRESERVE and do_constant_folding=False"
)
MERGED_UP_TO = 1024  # elements; DeduplicateInitializersPass of onnx_ir


def identity(use: Use, trainable: bool, scale: float) -> tuple[Any, ...] | None:
    """The key that two nodes of one layer have in common; None if this node shares its param with no other."""
    weight = use.weight
    module = ""
    if weight.blank and use.layer is None:
        module = module_of(use.node) or ""
        if not module and not use.node.name.startswith("/"):  # node names of the older exporter since PyTorch 1.13
            return None
    elements = (weight.array.shape, weight.where.tobytes(), weight.layout.tobytes(), weight.slot_shape, scale)
    return op_key(use.node), weight.slot, use.role, use.layer, module, trainable, weight.copies, elements


def refuse_doubtful(one: Use, other: Use) -> None:
    """Raises ModelError if the exporter may have merged what two nodes with one identity read."""
    first, second = module_of(one.node), module_of(other.node)
    if other.layer is not None or first is None or second is None or first == second:
        return
    named_after = other.weight.name.rpartition(".")[0]
    if other.weight.array.size <= MERGED_UP_TO and named_after != second:
        raise refuse(
            other.node,
            f"{_same(one, other)}, and the file does not tell whether they are one layer: "
            "use one module in both places, or export with optimize=False, which does not merge equal tensors",
        )


def refuse_half_shared(
    uses: Mapping[int, Use], params: Sequence[Param], origins: Sequence[Origin], owned: Sequence[int]
) -> None:
    """Raises ModelError if two of the params `owned` by the plan hold the same elements and should be one."""
    for first, second in _meeting(uses, origins, sorted(owned)):
        one, other = uses[first], uses[second]
        trains = params[first].trainable or params[second].trainable
        if trains and not _merged(one, other) and np.isin(one.weight.where, other.weight.where).any():
            raise refuse(other.node, _why(one, other))


def refuse_folded_twins(uses: Mapping[int, Use], params: Sequence[Param], owned: Sequence[int]) -> None:
    """Raises ModelError if one of the params `owned` by the plan is a folded copy of another one."""
    twins: dict[tuple[int, float, float], list[int]] = {}  # by what transposing a matrix leaves in place
    for param in sorted(owned):
        if param in uses and not uses[param].weight.blank and (array := uses[param].weight.array).ndim == 2:
            twins.setdefault((array.size, float(array[0, 0]), float(array[-1, -1])), []).append(param)
    for together in twins.values():
        for first, second in combinations(together, 2):
            one, other = uses[first], uses[second]
            trains = params[first].trainable or params[second].trainable
            if trains and (_is_folded(one) or _is_folded(other)) and _equal(one.weight.array, other.weight.array):
                what = f"its {_called(other)} holds the numbers of the {_called(one)} of {describe(one.node)}"
                raise refuse(other.node, f"{what}, {UNFOLD}")


def _is_folded(use: Use) -> bool:
    return use.weight.name.startswith(FOLDED)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other) or np.array_equal(one, other.T)


def _meeting(uses: Mapping[int, Use], origins: Sequence[Origin], owned: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of params with elements in the same tensor of the file, without params of equal numbers."""
    starts = [origin.offset for origin in origins]
    readers: dict[int, list[int]] = {}
    for param in owned:
        if param not in uses or uses[param].weight.blank:
            continue
        for home in np.unique(np.searchsorted(starts, uses[param].weight.where, "right") - 1):
            readers.setdefault(int(home), []).append(param)
    for together in readers.values():
        yield from combinations(together, 2)


def _merged(one: Use, other: Use) -> bool:
    """Whether these were equal tensors of different layers, which the exporter merged."""
    follow = one.layer is not None and other.layer is not None and one.layer != other.layer
    if follow and (op_key(one.node), one.role) == (op_key(other.node), other.role):
        return True
    return one.weight.copies != other.weight.copies and not _folded(one, other)


def _folded(one: Use, other: Use) -> bool:
    return any(name.startswith(FOLDED) for name in one.weight.copies ^ other.weight.copies)


def module_of(node: onnx.NodeProto) -> str | None:
    """The PyTorch module that the node belongs to, "" for the net itself; None if the file does not tell."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (SyntaxError, ValueError):
                return None
            return scopes[-2] if isinstance(scopes, list) and len(scopes) > 1 else None
    return None


def _same(one: Use, other: Use) -> str:
    return f"its {_called(other, one.weight.name)} is also the {one.role} of {describe(one.node)}"


def _called(use: Use, name: str = "") -> str:
    name = use.weight.name or name
    return f"{use.role} {name!r}" if name else use.role


def _why(one: Use, other: Use) -> str:
    if _folded(one, other):
        return f"{_same(one, other)}, {UNFOLD}"
    name = other.weight.name or one.weight.name
    freeze = f", or leave it as it is with freeze=[{name!r}]" if name else ""
    return f"{_same(one, other)}, which is not trained as one yet: export the model with a copy for each{freeze}"
