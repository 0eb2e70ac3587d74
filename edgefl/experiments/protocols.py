"""The three protocols: quality under a budget, cost to a target, robustness. All are numbers of the same runs.

They are those by which on-device training is compared where accuracy after a number of rounds says too little: a
strategy may need fewer rounds and more bytes, or do well until devices fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from .comparison import Comparison, Measure
from .grid import Cell
from .intervals import Mean

STEP = 0.01  # a target that nobody has named is a whole percent


@dataclass(frozen=True)
class Reached:
    """A cell's `reached` of `runs` seeds came to `target`; `cost` measures what a run had spent of a cost then."""

    cell: Cell
    target: float
    reached: int
    runs: int
    cost: Callable[[str], Measure]


@dataclass(frozen=True)
class Robust:
    """A cell under faults, and its difference from the same cell under the first faults, paired by seed."""

    cell: Cell
    value: Mean
    lost: Mean


def budgets_of(found: Comparison, group: list[Cell]) -> dict[str, float]:
    """Quality under a budget: the experiment's budgets by cost, as far as it was measured; without any, what the
    cheapest cell of the group has spent in all of each cost."""
    given = found.grid.experiment.compare.budgets
    if given:
        return {cost: given[cost] for cost in found.costs if cost in given}
    least = {cost: _least_total(found, group, cost) for cost in found.costs}
    return {cost: budget for cost, budget in least.items() if math.isfinite(budget)}


def costs_to_targets(found: Comparison, group: list[Cell]) -> Iterator[Reached]:
    """Cost to each target: the experiment's; without any, what the first cell of the group reaches in the end, down to
    a whole percent."""
    for target in found.grid.experiment.compare.targets or _target(found, group[0]):
        for cell in group:
            spent = partial(found.cost_to, found.quality, target)
            rounds = found.values(cell, spent("rounds"))
            yield Reached(cell, target, sum(map(math.isfinite, rounds.values())), len(rounds), spent)


def robustness(found: Comparison) -> Iterator[Robust]:
    """Every cell under faults beside itself under the first ones; nothing if there are no others."""
    measure = found.at_end(found.quality)
    for cell in found.cells():
        if cell.faults != found.grid.faults[0]:
            without = cell._replace(faults=found.grid.faults[0])
            yield Robust(cell, found.mean(cell, measure), found.against(cell, without, measure))


def groups(found: Comparison) -> list[list[Cell]]:
    """The cells that are compared with each other: those of one partition and faults."""
    by_group: dict[tuple[str, str], list[Cell]] = {}
    for cell in found.cells():
        by_group.setdefault((cell.partition, cell.faults), []).append(cell)
    return list(by_group.values())


def _least_total(found: Comparison, group: list[Cell], cost: str) -> float:
    means = [found.mean(cell, found.total(cost)).value for cell in group]
    return min((mean for mean in means if math.isfinite(mean)), default=math.nan)


def _target(found: Comparison, cell: Cell) -> list[float]:
    reached = found.mean(cell, found.at_end(found.quality)).value
    if not math.isfinite(reached) or found.quality.endswith("loss"):
        return []
    return [max(0.0, math.floor(reached / STEP) * STEP)]
