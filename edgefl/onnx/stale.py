"""Constants that were computed from a weight: if the weight is trained elsewhere, they would keep its old numbers, and
the saved file would compute something else than what was trained. Such a model is refused.

Not here: how constants are computed (computed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from .items import Const, Item
from .nodes import describe, op_key, refuse
from .trace import Trace

SIZES = ("Shape", "Size", "CastLike")  # what they read of their last input is not its numbers


def remembering(trace: Trace, node: onnx.NodeProto, inputs: Sequence[Item | None], made: Const) -> Const:
    """`made`, which `node` has computed from constants, with the weights that its numbers come from."""
    if made.where is not None or made.array.dtype != np.float32 or op_key(node) == "Shape":
        return made
    read = [item for item in (inputs[:1] if op_key(node) in SIZES else inputs) if isinstance(item, Const)]
    if op_key(node) == "MatMul" and not all(item.array.any() for item in read):
        return made  # zeros, whatever the weight is
    homes = frozenset().union(*(item.made_of for item in read), *(trace.homes_of(item) for item in read))
    return replace(made, made_of=made.made_of | homes)


def note(trace: Trace, node: onnx.NodeProto, inputs: Sequence[Item | None]) -> None:
    """`node` reads these beside activations."""
    for item in inputs:
        if isinstance(item, Const):
            for home in item.made_of:
                trace.computed_from.setdefault(home, node)


def refuse_stale(trace: Trace, owned: Sequence[int]) -> None:
    """Raises ModelError if one of the params `owned` by the plan is trained, and a constant was computed from it."""
    for param in owned:
        if not trace.computed_from or param not in trace.uses or not trace.params[param].trainable:
            continue
        weight = trace.uses[param].weight
        for home in trace.homes_of(Const(weight.array, weight.where)) & trace.computed_from.keys():
            name = trace.named.get(home, weight.name)
            raise refuse(
                trace.computed_from[home],
                f"reads numbers computed from {name!r}, which {describe(trace.uses[param].node)} trains: "
                f"leave it as it is with freeze=[{name!r}]",
            )
