"""Masks: from the names and kinds that settings say to the params that are personal; and which are frozen for all
devices. Not on a device: the manifest says which they are (core/mask.py)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from .core.columns import MEAN, SCALE
from .core.mask import Mask, unchanging
from .core.plan import Node, Plan
from .errors import ModelError, UsageError, nearest
from .settings import Settings
from .strategies import Strategy

KINDS = ("bn", "head")


def personal_params(plan: Plan, patterns: Sequence[str]) -> list[int]:
    """The indices of the plan's params that `patterns` mean, in ascending order; UsageError if one means none, or if
    nothing that is trained would be left to share."""
    found: set[int] = set()
    for pattern in patterns:
        meant = _meant(plan, pattern)
        if not meant:
            raise UsageError(_no_match(plan, pattern))
        found |= meant
    try:
        return list(Mask(plan, sorted(found)).personal)
    except ModelError as error:
        raise UsageError(f"personal.keep is {list(patterns)!r}: {error}") from None


def of_settings(settings: Settings, strategy: Strategy, plan: Plan) -> list[int]:
    """What the settings keep on the devices, or what the strategy does where they say nothing."""
    patterns = settings.personal.keep
    return personal_params(plan, strategy.personal if patterns is None else patterns)


def base_params(settings: Settings, strategy: Strategy, plan: Plan, personal: Sequence[int]) -> list[int]:
    """The indices of the params that go to each device once, in ascending order. A strategy with vectors of the whole
    model has none."""
    whole = bool(strategy.sides or strategy.sent_sides) or "personal" in strategy.fit.without
    if settings.downlink.frozen == "always" or whole:
        return []
    return unchanging(plan, personal)


def mask_of(settings: Settings, strategy: Strategy, plan: Plan) -> Mask:
    """Which params updates have."""
    personal = of_settings(settings, strategy, plan)
    return Mask(plan, personal, base_params(settings, strategy, plan, personal))


def check(settings: Settings, personal: Sequence[int]) -> None:
    """UsageError if what the settings ask for needs a whole model at the aggregator, and devices keep a part."""
    if not personal:
        return
    why = "the aggregator has no model that a device uses, since devices keep personal.keep"
    if settings.gate.judge != "none":
        raise UsageError(f'gate.judge = "{settings.gate.judge}" can\'t judge: {why}; leave one of them out')
    if settings.rounds.target_accuracy is not None:
        raise UsageError(f"rounds.target_accuracy is never reached: {why}; leave one of them out")


def _meant(plan: Plan, pattern: str) -> set[int]:
    if pattern == "bn":
        return {index for node in plan.nodes if node.op == "batch_norm" for index in node.params}
    if pattern == "head":
        return _head(plan)
    names = [param.name for param in plan.params]
    return {i for i, name in enumerate(names) if fnmatchcase(name, pattern) and name not in (MEAN, SCALE)}


def _head(plan: Plan) -> set[int]:
    """The last layer: from the last trained param back to the next weight, which has two axes or more."""
    found: set[int] = set()
    for node in reversed([node for node in plan.nodes if _trains(plan, node)]):
        found |= set(node.params)
        if any(len(plan.params[index].shape) > 1 for index in node.params):
            break
    return found


def _trains(plan: Plan, node: Node) -> bool:
    return any(plan.params[index].trainable for index in node.params)


def _no_match(plan: Plan, pattern: str) -> str:
    if pattern in KINDS:
        what = "batch normalization" if pattern == "bn" else "trained layer"
        return f"personal.keep has {pattern!r}, and the model has no {what}: name its params"
    hint = nearest(pattern, [*KINDS, *(param.name for param in plan.params)])
    return f"personal.keep has {pattern!r}, which no param of the model is called: {hint}"
