"""What is chosen once for the life of a state folder: what "auto" stands for, and what trains within [sparse]."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from edgefl import arena_budget, auto
from edgefl.core.plan import Plan
from edgefl.errors import StoreError, UsageError
from edgefl.hosting import versions
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx.model import Model
from edgefl.onnx.sparse import Choice, applied

SPARSE = "sparse"  # key in the store


class Store(Protocol):
    """Where choices are: the aggregator's own store, or a look at it."""

    def kept(self, key: str) -> str | None: ...

    def keep(self, key: str, value: str) -> str: ...


class Look:
    """The choices in a state folder that an aggregator may have open; no folder has no choices. Nothing is written: a
    folder without a choice stays without one. StoreError."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def kept(self, key: str) -> str | None:
        if self._folder is None or not (self._folder / versions.DATABASE).is_file():
            return None
        with versions.opened(self._folder) as found:
            return found.choice(key)

    def keep(self, key: str, value: str) -> str:
        return self.kept(key) or value


class _Kept(msgspec.Struct, frozen=True):
    """The choice for [sparse], and the budget that it was made for."""

    arena_mb: float
    choice: Choice


class Chosen(NamedTuple):
    """The model that trains what [sparse] has chosen, what to keep in the store for that, and to say in the log."""

    model: Model
    keep: dict[str, str]
    told: str


def choice_of(config: AggregatorConfig, plan: Plan, store: Store) -> auto.Choice | None:
    """The choice for `config`; None if it has no "auto".

    The first choice is kept in `store`: the devices' residuals belong to its manifest, so neither a restart, nor
    another `fraction` or `expect`, nor a newer version of this program changes it.
    """
    if not auto.wanted(config):
        return None
    kept = store.keep("auto", msgspec.json.encode(auto.choose(config, plan)).decode())
    try:
        return msgspec.json.decode(kept, type=auto.Choice)
    except msgspec.DecodeError:
        raise _damaged('"auto"') from None


def within_budget(config: AggregatorConfig, model: Model, store: Store) -> Chosen:
    """`model` as [sparse] wants it: by the choice that `store` has, or at the first start by a new one.

    A second choice could be another one, since gradients depend on the processor: then the plan would be another one
    too, which no owner has approved. UsageError for another budget than that of the first start.
    """
    budget = config.sparse.arena_mb
    if not budget:
        return Chosen(model, {}, "")
    text = store.kept(SPARSE)
    if text is None:
        choice = arena_budget.choice_for(model, config)
        assert choice is not None
        text = msgspec.json.encode(_Kept(budget, choice)).decode()
    try:
        kept = msgspec.json.decode(text, type=_Kept)
    except msgspec.DecodeError:
        raise _damaged("[sparse]") from None
    if kept.arena_mb != budget:
        raise UsageError(
            f"sparse.arena_mb is {budget:g}, and this federation has begun with {kept.arena_mb:g}: set that again, or "
            "give the federation a state_dir of its own"
        )
    made, choice = applied(model, kept.choice), kept.choice
    parts = f"{len(choice.channels)} weights by some input channels"
    told = f"{made.plan.num_trainable} params train in {choice.arena_bytes / 1e6:.1f} MB, {parts}"
    return Chosen(made, {SPARSE: text}, told)


def _damaged(what: str) -> StoreError:
    return StoreError(f"the choice for {what} in the state folder is damaged: put a backup in its place")
