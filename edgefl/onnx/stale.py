"""Constants that are, or were computed from, a weight that is trained elsewhere: the plan keeps their old numbers, and
the saved file would compute something else than what was trained.

A model with numbers computed from such a weight is refused. Where a node reads the tensor itself as fixed numbers (a
limit, a frozen normalization's statistics), what is trained gets an initializer of its own in a saved file.

Not here: how constants are computed (computed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from .items import Const, Item
from .nodes import describe, op_key, refuse
from .trace import Trace
from .untrained import MEASURED

SIZES = ("Shape", "Size")  # do not read numbers


def remembering(trace: Trace, node: onnx.NodeProto, inputs: Sequence[Item | None], made: Const) -> Const:
    """`made`, which `node` has computed from constants, with the weights that its numbers come from."""
    if made.where is not None or op_key(node) in SIZES:
        return made
    read = [item for item in (inputs[:1] if op_key(node) == "CastLike" else inputs) if isinstance(item, Const)]
    if op_key(node) == "MatMul":  # by zeros: zeros, whatever the other side is
        read = next(([item] for item in read if not item.array.any()), read)
    homes = frozenset().union(*(item.made_of for item in read), *(trace.homes_of(item) for item in read))
    return replace(made, made_of=made.made_of | homes)


def note(trace: Trace, node: onnx.NodeProto, inputs: Sequence[Item | None]) -> None:
    """`node` reads these beside activations."""
    for slot, item in enumerate(inputs):
        if isinstance(item, Const):
            for home in item.made_of:
                trace.computed_from.setdefault(home, node)
            if item.where is not None and not trace.reads(slot):
                trace.fixed |= trace.homes_of(item)


def part_from_fixed(trace: Trace, owned: Sequence[int]) -> None:
    """Keeps what changes, of the params `owned` by the plan, out of tensors that a node reads as fixed numbers."""
    for param in _changing(trace, owned) if trace.fixed else ():
        weight, binding = trace.uses[param].weight, trace.bindings[param]
        if trace.homes_of(Const(weight.array, weight.where)) & trace.fixed and weight.slot is not None:
            trace.bindings[param] = replace(binding, apart=True)


def _changing(trace: Trace, owned: Sequence[int]) -> list[int]:
    """The params that are trained or measured."""
    return [at for at in owned if at in trace.uses and (trace.params[at].trainable or trace.why[at] == MEASURED)]


def refuse_stale(trace: Trace, owned: Sequence[int]) -> None:
    """Raises ModelError if one of the params `owned` by the plan changes, and a constant was computed from it."""
    for param in _changing(trace, owned) if trace.computed_from else ():
        weight = trace.uses[param].weight
        for home in trace.homes_of(Const(weight.array, weight.where)) & trace.computed_from.keys():
            name = trace.named.get(home, weight.name)
            raise refuse(
                trace.computed_from[home],
                f"reads numbers computed from {name!r}, which {describe(trace.uses[param].node)} trains: "
                f"leave it as it is with freeze=[{name!r}]",
            )
