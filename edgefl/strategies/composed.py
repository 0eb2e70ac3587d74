"""Composed: a strategy of three parts, pre → combine → server optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, Literal

import numpy as np

from ..errors import StoreError
from .base import Part, Site, State, Strategy, Training, Update
from .combine import Combine
from .fit import EVERYTHING, Fit
from .pre import Pre
from .pre.staleness import Staleness
from .server import ServerOptimizer
from .weights import EXAMPLES, UNIT


class Composed(Strategy):
    """Each update goes through the `pre` steps in order; `combine` makes one delta of all; `server` applies it.

    `mode` is what devices compute: "sgd" a delta by local training, "gradient" minus one gradient over all their data.
    `weights` are set by the settings. What `fit` and a part exclude or need, the whole excludes or needs.
    """

    def __init__(
        self,
        name: str,
        *,
        combine: Combine,
        server: ServerOptimizer,
        pre: Sequence[Pre] = (Staleness(),),
        mode: Literal["sgd", "gradient"] = "sgd",
        fit: Fit = EVERYTHING,
    ) -> None:
        self.name = name
        self.pre, self.combine, self.server = tuple(pre), combine, server
        self._mode = mode
        self.weights = EXAMPLES
        self.grain = min((part.grain for _, part in self._parts() if part.grain is not None), default=None)
        self.carries = any(part.carries for _, part in self._parts())
        self.by_step = any(part.by_step for _, part in self._parts())
        self.fit = reduce(or_, (part.fit for _, part in self._parts()), fit)
        self._params: np.ndarray | None = None

    def _parts(self) -> Iterator[tuple[str, Part]]:
        yield from ((f"pre{place}", part) for place, part in enumerate(self.pre))
        yield "combine", self.combine
        yield "server", self.server

    def defaults(self, train: Training) -> Mapping[str, Any]:
        wanted: dict[str, Any] = {"local_mode": self._mode}
        for _, part in self._parts():
            wanted.update(part.defaults(train))
        return wanted

    def prepare(self, site: Site) -> None:
        for _, part in self._parts():
            part.prepare(site)

    def weigh(self, num_examples: int) -> int:
        return UNIT if self.combine.alike else self.weights.weigh(num_examples)

    def reach(self, num_examples: int) -> float:
        return self.combine.reach(num_examples)

    def start(self, params: np.ndarray, round: int) -> None:
        self._params = params
        for _, part in self._parts():
            part.begin(round, params)
        self.combine.start(len(params))

    def add(self, update: Update) -> None:
        update = self.weights.apply(update)
        for step in self.pre:
            update = step.apply(update)
        self.combine.add(update)

    def finish(self) -> np.ndarray:
        assert self._params is not None
        return self.server.step(self._params, self.combine.finish())

    def state(self) -> State:
        return {f"{place}.{key}": array for place, part in self._parts() for key, array in part.state().items()}

    def restore(self, state: State) -> None:
        places = {place: part for place, part in self._parts()}
        shares: dict[str, State] = {place: {} for place in places}
        for key, array in state.items():
            place, _, own = key.partition(".")
            if place not in places:
                raise StoreError(
                    f"strategy {self.name!r} has no part {place!r} that kept state: choose another state_dir"
                )
            shares[place][own] = array
        for place, part in places.items():
            part.restore(shares[place])
