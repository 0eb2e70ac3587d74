"""Channels: a weight of which only some input channels are trained, as two params of the plan.

A conv or dense with a trained W (.., C, O) becomes a conv_part with T (.., chosen channels, O), which is trained, and
F (.., the others, O), which is frozen. T is a param like any other: optimizers, masks and codecs know nothing of it.
Updates have T alone. F goes down once, with all that is frozen. Of the layer's input, the chosen channels are kept for
backward (src/ops/conv_part.c).

Here a plan and the bindings of its params are taken apart; the ONNX file does not change, and has W in one.

Not here: which channels (sparse.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from ..core.columns import CONVOLUTIONS
from ..core.plan import Node, Param, Plan
from ..errors import UsageError, nearest
from .export import Binding, Place, Read
from .untrained import Untrained

if TYPE_CHECKING:
    from .model import Model

WINDOW = (1, 1, 0, 0, 0, 0, 1, 1)  # of a dense layer: src/ops/conv_part.c
BITS, WORDS = 52, 40  # of a word; in a node
REST = ".frozen"  # what the frozen part's name ends with

Channels = Mapping[str, Sequence[int]]  # of weights, by name: the input channels that are trained


def can_part(plan: Plan) -> dict[int, int]:
    """The trained weights that can be taken apart, by index: how many input channels they have.

    A weight that several nodes read can't, nor one of groups of channels, nor that of a dense layer with few outputs,
    whose rows are the outputs'. Nor can the first convolution, whose shape says which axis of an example has its
    columns.
    """
    owners = [index for node in plan.nodes for index in node.params]
    first = next((node for node in plan.nodes if node.op in CONVOLUTIONS), None)
    found = {}
    for node in plan.nodes:
        whole = (node.op == "conv" and node.ints[8] == 1 and node is not first) or (
            node.op == "dense" and not node.ints
        )
        weight = node.params[0] if whole else -1
        if whole and plan.params[weight].trainable and owners.count(weight) == 1:
            channels = plan.params[weight].shape[-2]
            if 1 < channels <= BITS * WORDS:
                found[weight] = channels
    return found


def parted(plan: Plan, chosen: Mapping[int, Sequence[int]]) -> Plan:
    """The plan with these weights, by index, in two params; the frozen ones come last. `chosen`: ascending."""
    params, rests = list(plan.params), dict[int, int]()
    for index, channels in chosen.items():
        name, (*kernel, count, outputs) = plan.params[index].name, plan.params[index].shape
        params[index] = Param(name, [*kernel, len(channels), outputs])
        rests[index] = len(params)
        params.append(Param(f"{name}{REST}", [*kernel, count - len(channels), outputs], False))
    nodes = []
    for node in plan.nodes:
        weight = node.params[0] if node.params else -1
        if weight in rests:
            words = _words(plan.params[weight].shape[-2], chosen[weight])
            window = node.ints[:8] if node.op == "conv" else WINDOW
            node = Node("conv_part", node.inputs, [weight, rests[weight], *node.params[1:]], [*window, *words])
        nodes.append(node)
    return structs.replace(plan, nodes=nodes, params=params)


def _words(count: int, chosen: Sequence[int]) -> list[int]:
    bits = [0] * -(-count // BITS)
    for channel in chosen:
        bits[channel // BITS] |= 1 << channel % BITS
    return bits


def split(model: Model, channels: Channels) -> Model:
    """The model of which the weights named in `channels` are trained for these input channels alone. UsageError."""
    if not channels:
        return model
    if model.adapters is not None:
        raise UsageError("the model trains its adapters: leave channels out, or merge them (model.save) first")
    chosen = _checked(model.plan, channels)
    plan = parted(model.plan, chosen)
    starts = np.cumsum([0, *(param.size for param in model.plan.params)])
    bindings, values = list(model.bindings), [model.params[start:end] for start, end in pairwise(starts)]
    stays = list(model.untrained)
    for index, some in chosen.items():
        shape, binding, value = model.plan.params[index].shape, model.bindings[index], values[index]
        others = np.setdiff1d(np.arange(shape[-2]), some)
        for at, part in ((index, some), (len(bindings), others)):
            where = np.arange(prod(shape)).reshape(shape)[..., part, :].ravel()
            bindings[at : at + 1], values[at : at + 1] = [_bound(binding, where)], [value[where]]
        reason = f"but for {len(some)} of {shape[-2]} input channels"
        stays.append(Untrained(model.plan.params[index].name, binding.reads[0].shape, reason))
    return replace(
        model, plan=Plan.from_bytes(plan.to_bytes()), params=np.concatenate(values), bindings=bindings,
        untrained=tuple(stays),
    )  # fmt: skip


def _bound(binding: Binding, where: np.ndarray) -> Binding:
    """The binding of a param's elements `where`."""
    places = tuple(Place(place.where[where], place.scale) for place in binding.places)
    reads = tuple(Read(read.node, read.slot, read.shape, read.layout[where]) for read in binding.reads)
    return replace(binding, places=places, reads=reads)


def _checked(plan: Plan, channels: Channels) -> dict[int, list[int]]:
    """By index; a weight all of whose channels are named stays as it is."""
    named = {param.name: index for index, param in enumerate(plan.params)}
    known, found = can_part(plan), dict[int, list[int]]()
    for name, given in channels.items():
        if name not in named:
            raise UsageError(f"channels names {name!r}, which no weight is called: {nearest(name, list(named))}")
        if named[name] not in known:
            raise UsageError(
                f"channels names {name!r}, which is frozen, shared by several nodes, the first convolution or no plain "
                "convolution or dense layer: name another weight, or freeze it"
            )
        count, some = known[named[name]], sorted(set(given))
        if not some or some[0] < 0 or some[-1] >= count:
            raise UsageError(f"channels of {name!r} are {some}: name some of 0 to {count - 1}")
        if len(some) < count:
            found[named[name]] = some
    return found
