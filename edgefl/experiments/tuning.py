"""Tuning: the same number of trials for each variant on each partition, judged by what the devices hold out.

Equal budgets are what makes a comparison fair: a strategy that is tuned more than another looks better than it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..simulation import names
from .folder import Folder, Wanted
from .grid import Cell, Grid, Point, with_point
from .results import Result, at_end

Key = tuple[str, str]  # variant and partition
PART = 3  # with halving, a third of the trials goes on after a third of the rounds
SEED = 1_000_000  # added to the seeds of trials, so that no compared run has the same


class Trial(NamedTuple):
    """A point that was tried for so many rounds: its mean quality over seeds, higher is better; NaN if a run failed."""

    point: Point
    score: float
    rounds: int


class Tuned(NamedTuple):
    """The trials of a variant on a partition, the best first, and names whose best value is at the end of its list.
    Those that were left out early come last."""

    trials: list[Trial]
    at_edge: list[str]

    @property
    def best(self) -> Point:
        return self.trials[0].point


def is_wanted(grid: Grid) -> bool:
    """Whether the experiment has anything to tune."""
    return bool(grid.experiment.tune.grid or grid.experiment.tune.own)


def tune(grid: Grid, folder: Folder) -> dict[Key, Tuned]:
    """By variant and partition. Trials have the first codec and the first faults of the experiment. UsageError."""
    wanted = grid.experiment.tune
    if strange := set(wanted.own) - set(grid.variants):
        raise UsageError(f"[tune.own] {min(strange)}: there is no such strategy or variant in [compare]")
    if "codec" in _space(grid, "") and len(grid.codecs) > 1:
        raise UsageError("codec is compared and tuned: leave it out of [compare] codecs or of [tune.grid]")
    plans = {
        (variant, partition): trials_of(grid, variant) for variant in grid.variants for partition in grid.partitions
    }
    rounds, left_out = wanted.rounds or grid.base.rounds.rounds or 1, dict[Key, list[Trial]]()
    if wanted.halving:
        first = _tried(grid, folder, plans, -(-rounds // PART))
        left_out = {key: trials[-(-len(trials) // PART) :] for key, trials in first.items()}
        plans = {key: [trial.point for trial in trials[: -(-len(trials) // PART)]] for key, trials in first.items()}
    return {
        key: Tuned(trials + left_out.get(key, []), _at_edge(trials[0].point, _space(grid, key[0])))
        for key, trials in _tried(grid, folder, plans, rounds).items()
    }


def _tried(grid: Grid, folder: Folder, plans: Mapping[Key, list[Point]], rounds: int) -> dict[Key, list[Trial]]:
    """The trials of each plan, the best first, after so many rounds."""
    wanted = grid.experiment.tune
    runs = [
        (key, number, _wanted(grid, key, point, seed, rounds))
        for key, points in plans.items()
        for number, point in enumerate(points)
        for seed in range(wanted.seeds)
    ]
    results = folder.results([one for _, _, one in runs])
    scores: dict[tuple[Key, int], list[float]] = {}
    for (key, number, _), result in zip(runs, results, strict=True):
        scores.setdefault((key, number), []).append(_score(result, grid.experiment.compare.last))
    found = {}
    for key, points in plans.items():
        trials = [Trial(point, float(np.mean(scores[key, number])), rounds) for number, point in enumerate(points)]
        found[key] = sorted(trials, key=lambda trial: -trial.score if np.isfinite(trial.score) else np.inf)
    return found


def points_of(space: Mapping[str, Sequence[Any]], count: int | None, seed: int) -> list[Point]:
    """All combinations; of more than `count`, so many drawn by `seed`, in which each value comes equally often."""
    names, total = list(space), int(np.prod([len(values) for values in space.values()]))
    if count is None or total <= count:
        return [dict(zip(names, values, strict=True)) for values in product(*space.values())]
    rng, found = random.Random(seed), dict[str, Point]()
    while len(found) < count:
        columns = []
        for values in space.values():
            column = [values[number % len(values)] for number in range(count)]
            rng.shuffle(column)
            columns.append(column)
        for values in zip(*columns, strict=True):
            point = dict(zip(names, values, strict=True))
            if len(found) < count:
                found.setdefault(repr(point), point)
    return list(found.values())


def _space(grid: Grid, variant: str) -> dict[str, list[Any]]:
    wanted = grid.experiment.tune
    space = {**wanted.grid, **wanted.own.get(variant, {})}
    if empty := [name for name, values in space.items() if not values]:
        raise UsageError(f"[tune] {empty[0]} has no values to try")
    return space


def trials_of(grid: Grid, variant: str) -> list[Point]:
    """The trials of a variant; UsageError for a name or a value that is not allowed."""
    points = points_of(_space(grid, variant), grid.experiment.tune.trials, grid.base.train.seed)
    for point in points:
        settings = with_point(grid.base.replace(**grid.variants[variant]), point)
        names.check(settings, grid.partitions[0], grid.faults[0])
    return points


def _wanted(grid: Grid, key: Key, point: Point, number: int, rounds: int) -> Wanted:
    variant, partition = key
    wanted = grid.experiment.tune
    codec = "" if "codec" in point else grid.codecs[0]
    cell = Cell(variant, codec, partition, grid.faults[0])
    changes: dict[str, Any] = {"evaluate.holdout": wanted.holdout, "rounds.rounds": rounds}
    seed = grid.base.train.seed + SEED + number
    words = " ".join(f"{name}={value}" for name, value in point.items())
    label = {"trial": "trial", "variant": variant, "partition": partition, "point": words, "seed": f"seed {seed}"}
    return Wanted(label, grid.case(cell, seed, point, **changes))


def _score(result: Result | None, last: int) -> float:
    if result is None:
        return float("nan")
    accuracy = at_end(result.curve, "held_accuracy", last)
    return accuracy if np.isfinite(accuracy) else -at_end(result.curve, "held_loss", last)


def _at_edge(point: Point, space: Mapping[str, Sequence[Any]]) -> list[str]:
    """Names of numbers whose best value is the least or the greatest that was tried: the true best may lie beyond."""
    found = []
    for name, values in space.items():
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) == len(values) > 2 and point[name] in (min(numbers), max(numbers)):
            found.append(name)
    return found
