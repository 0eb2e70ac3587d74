"""Approval: what an owner approves when a device asks whether it may train a plan: an id, and a description in words.

The aggregator chooses the plan, and with it what an update can reveal: a wide first layer can carry whole examples out
(docs/policy.md). So the id covers all that decides this: the graph, its loss, which params are trained, which of them
stay on the device, whether it sends one gradient, and what it sends beside the change of training. Rates, epochs and
codecs may change without a new approval, within the owner's bounds. So may the params that stay, where the plan is
approved with none of them staying.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.mask import Mask
from ..core.plan import Param, Plan
from ..digests import sha256
from .manifest import Manifest

DOMAIN = b"edgefl plan 1\n"
SHORTEST = 32  # hex digits by which people name a plan: two plans with 12 in common, a harmless one to show and another
# one to train, are found in seconds
MOST_LAYERS = 40  # in a description; a longer model is told by its first ones
MOST_NAMED = 8  # params
MOST_OF_NAME = 40  # characters of an input, an output
MEANINGS = {
    "cross_entropy": "one label of several classes",
    "bce": "yes-or-no targets",
    "mse": "numbers",
    "l1": "numbers",
    "huber": "numbers",
    "hinge": "one label of several classes",
    "focal": "one label of several classes",
}


def plan_id(manifest: Manifest) -> str:
    """64 hex digits that an owner approves: of the manifest's plan, its `local_mode`, its `personal` params and its
    `sent_sides`."""
    return id_of(manifest.plan, manifest.local_mode, manifest.personal, manifest.sent_sides)


def approved_by(manifest: Manifest) -> frozenset[str]:
    """The ids of which an approval is one of the manifest: its own, and the plan's with updates that have all params,
    which reveal what its own do, and more."""
    whole = id_of(manifest.plan, manifest.local_mode, sent_sides=manifest.sent_sides)
    return frozenset({plan_id(manifest), whole})


def short(id: str) -> str:
    """A plan's id as people are told it, and may give it."""
    return id[:SHORTEST]


def id_of(
    plan: Plan, local_mode: str = "sgd", personal: Sequence[int] = (), sent_sides: Sequence[str] = ()
) -> str:  # fmt: skip
    """The same, of a plan that no manifest holds yet. The plan has loss, params and which of them are trained."""
    stays = f"personal {','.join(map(str, personal))}\n" if personal else ""
    sent = f"sends {','.join(sent_sides)}\n" if sent_sides else ""
    return sha256(DOMAIN + f"{local_mode}\n{stays}{sent}".encode() + plan.to_bytes()).hexdigest()


def describe(manifest: Manifest) -> str:
    """What the manifest's plan trains, in plain words, a few lines. Everything in it is from the wire: the caller
    shows it to a person, so control characters are replaced."""
    plan, train = manifest.plan, manifest.train
    batch = "all examples" if train.batch_size == "all" else f"{train.batch_size} examples"
    lines = [
        f"federation  {manifest.federation}",
        f"reads       {_inputs(plan)} an example, and learns {_learned(plan)}",
        f"layers      {_layers(plan)}",
        f"params      {plan.num_params:,}, of which {plan.num_trainable:,} are trained",
        *_stays(manifest),
        f"training    epochs {train.epochs}, steps of {batch}, {train.optimizer} with lr {train.lr:g}{_rule(manifest)} "
        "(these may change without a new approval)",
        f"reveals     {_reveals(manifest)}",
    ]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def room(plan: Plan, personal: Sequence[int] = ()) -> int:
    """How many whole examples an update of the plan has room for, at most: the trained params that leave the device, by
    the numbers of one example. Which layer is how wide says less: one that passes the input on can precede a wide one.
    """
    sent = Mask(plan, personal).num_trained if personal else plan.num_trainable
    return sent // max(1, math.prod(plan.input_shape))


def _stays(manifest: Manifest) -> list[str]:
    """The params that never leave the device, in a line, if there are any."""
    if not manifest.personal:
        return []
    names = [manifest.plan.params[index].name for index in manifest.personal]
    more = len(names) - MOST_NAMED
    told = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return [f"keeps       {manifest.mask.num_personal:,} of them on this device, and sends none of these: {told}"]


def _rule(manifest: Manifest) -> str:
    return "" if manifest.local is None else f", by the rule {manifest.local.name}"


def _reveals(manifest: Manifest) -> str:
    if manifest.local_mode == "gradient":
        text = "one gradient over all examples, the form that reveals most"
    else:
        text = f"what training changes in the {'other ' if manifest.personal else ''}params"
    if manifest.sent_sides:
        text += f", and beside it {', '.join(manifest.sent_sides)}: a gradient over all examples reveals most"
    most = (1 + len(manifest.sent_sides)) * room(manifest.plan, manifest.personal)
    return f"{text}, with room for {most:,} whole examples at most (docs/policy.md)"


def _layers(plan: Plan) -> str:
    words = [_layer(plan, number) for number in range(min(len(plan.nodes), MOST_LAYERS))]
    more = len(plan.nodes) - len(words)
    return ", ".join([*words, f"and {more} more"] if more else words)


def _layer(plan: Plan, number: int) -> str:
    """The op, with the shape of its largest param, and whether that is trained."""
    node = plan.nodes[number]
    params = _params(plan, number)
    if not params:
        return node.op
    largest = max(params, key=lambda param: param.size)
    shape = largest.shape[::-1] if node.op == "dense" and node.ints == [1] else largest.shape  # a turned weight
    return f"{node.op} {_shape(shape)}{'' if largest.trainable else ' (fixed)'}"


def _params(plan: Plan, number: int) -> list[Param]:
    """Of a node; an index that no param has is left to the core, which refuses the plan."""
    return [plan.params[index] for index in plan.nodes[number].params if index < len(plan.params)]


def _inputs(plan: Plan) -> str:
    if not plan.inputs:
        return f"{_shape(plan.input_shape)} {_kind(plan.input_dtype)}"
    return ", ".join(f"{each.name[:MOST_OF_NAME]}: {_shape(each.shape)} {_kind(each.dtype)}" for each in plan.inputs)


def _learned(plan: Plan) -> str:
    if not plan.losses:
        return f"{MEANINGS[plan.loss]} (loss {plan.loss})"
    times = ((head, "" if head.weight == 1 else f" times {head.weight:g}") for head in plan.losses)
    return ", ".join(
        f"{head.name[:MOST_OF_NAME]}: {MEANINGS[head.loss]} (loss {head.loss}{weight})" for head, weight in times
    )


def _kind(dtype: str) -> str:
    return "tokens" if dtype == "int64" else "numbers"


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "1"
