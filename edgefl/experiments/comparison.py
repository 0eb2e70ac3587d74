"""Comparison: an experiment's runs by cell and seed, and every number that tables and figures show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import added as foreign
from .added import UNPAIRED, Added
from .folder import Folder, Wanted
from .grid import Cell, Grid
from .intervals import Mean, mean, paired
from .results import COSTS, Curve, Result, at_end, cost_to, quality, total, under
from .tuning import Tuned, is_wanted, tune

Measure = Callable[[Curve], float]


@dataclass(frozen=True)
class Comparison:
    """`tuned` is by variant and partition; `failed` says by label why a run is missing."""

    grid: Grid
    tuned: Mapping[tuple[str, str], Tuned]
    results: Mapping[Cell, Mapping[int, Result | Added]]
    failed: Mapping[str, str]
    added: Sequence[Added] = ()

    @property
    def quality(self) -> str:
        """What is compared: the column of the curves, as the experiment's own runs have it."""
        found = [result for runs in self.results.values() for result in runs.values()]
        own = [result for result in found if isinstance(result, Result)]
        curves = (result.curve for result in own or found)
        return quality(curves, by_devices=self.grid.experiment.compare.judge == "devices")

    @property
    def worst(self) -> str:
        """The same of the worst tenth of the devices."""
        return "worst_loss" if self.quality.endswith("loss") else "worst_accuracy"

    def cells(self) -> Iterator[Cell]:
        """Those of the experiment, then the rows that were added."""
        yield from self.grid.cells()
        yield from dict.fromkeys(cell for one in self.added if (cell := one.cell(self.grid)) is not None)

    @property
    def last(self) -> int:
        return self.grid.experiment.compare.last

    @property
    def costs(self) -> list[str]:
        """Those that were measured."""
        curves = [result.curve for runs in self.results.values() for result in runs.values()]
        return [cost for cost in COSTS if any(math.isfinite(total(curve, cost)) for curve in curves)]

    def first(self, cell: Cell) -> Cell:
        """What the cell is measured by: the first variant and codec of the same partition and faults."""
        return Cell(next(iter(self.grid.variants)), self.grid.codecs[0], cell.partition, cell.faults)

    def values(self, cell: Cell, measure: Measure) -> dict[int, float]:
        """One value a seed."""
        return {seed: measure(result.curve) for seed, result in self.results.get(cell, {}).items()}

    def mean(self, cell: Cell, measure: Measure) -> Mean:
        return mean(self.values(cell, measure))

    def against(self, cell: Cell, other: Cell, measure: Measure) -> Mean:
        """The cell's values less those of another, paired by seed."""
        return paired(self.values(cell, measure), self.values(other, measure))

    # Measures

    def at_end(self, name: str) -> Measure:
        return lambda curve: at_end(curve, name, self.last)

    def under(self, name: str, cost: str, budget: float) -> Measure:
        return lambda curve: under(curve, name, cost, budget, self.last)

    def cost_to(self, name: str, target: float, cost: str) -> Measure:
        return lambda curve: cost_to(curve, name, target, cost)

    def total(self, cost: str) -> Measure:
        return lambda curve: total(curve, cost)


def compare(grid: Grid, folder: Folder) -> Comparison:
    """Tune what is to be tuned, then run what is missing; runs that were added stand beside them. UsageError."""
    added = foreign.all_in(folder.path)
    foreign.not_shown(grid, added)  # a name that is taken is told before anything is run
    tuned = tune(grid, folder) if is_wanted(grid) else {}
    wanted = [(cell, seed, _wanted(grid, cell, seed, tuned)) for cell in grid.cells() for seed in grid.seeds]
    results: dict[Cell, dict[int, Result | Added]] = {}
    for (cell, seed, _), result in zip(wanted, folder.results([one for _, _, one in wanted]), strict=True):
        if result is not None:
            results.setdefault(cell, {})[seed] = result
    for one in added:
        if (place := one.cell(grid)) is not None:
            results.setdefault(place, {})[UNPAIRED if one.seed is None else one.seed] = one
    return Comparison(grid, tuned, results, dict(folder.failed), added)


def _wanted(grid: Grid, cell: Cell, seed: int, tuned: Mapping[tuple[str, str], Tuned]) -> Wanted:
    found = tuned.get((cell.variant, cell.partition))
    label: dict[str, object] = {**cell._asdict(), "seed": f"seed {seed}"}
    return Wanted(label, grid.case(cell, seed, found.best if found else None))
