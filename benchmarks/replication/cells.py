"""Cell: one entry of a paper's table, and how it is run here.

A cell is tuned first: each of its `tries` runs once, with one seed and for few rounds. The best one then runs with
every seed. A run ends at the cell's target, or after `most` rounds. What a run gave is one JSON file, so a suite that
was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from models_and_data import Inputs

import edgefl
from edgefl.errors import UsageError

TUNING_SEED, SEEDS = 100, (0, 1, 2)
LAST = 0.1  # the share of a run's rounds whose mean is its final score


@dataclass(frozen=True)
class Cell:
    """`settings` go to edgefl.simulate. `target`: the cell counts the rounds until the test accuracy reaches it; None:
    its score is the mean over the last rounds, of `score`, "accuracy" or "loss". `published` is the paper's figure."""

    table: str
    name: str
    model: str
    settings: dict[str, Any]
    tries: tuple[dict[str, Any], ...]
    most: int
    short: int
    target: float | None = None
    published: float | None = None
    score: str = "accuracy"
    seeds: tuple[int, ...] = SEEDS
    same_tuning_as: str = ""  # the id of a cell whose best try is taken over
    tags: tuple[str, ...] = field(default=())

    @property
    def id(self) -> str:
        return f"{self.table}.{self.name}".replace(" ", "_").replace("=", "").replace("/", "-").replace(":", "")


@dataclass(frozen=True)
class Kept:
    """What one run gave: a score for each round, and what it took."""

    accuracy: list[float | None]
    loss: list[float | None]
    bytes_up: int
    bytes_down: int
    seconds: float
    sha256: str

    def rounds_to(self, target: float) -> int | None:
        """The first round after which the test accuracy is `target` or above; None: no round was."""
        return next((i for i, value in enumerate(self.accuracy, 1) if value is not None and value >= target), None)

    def final(self, score: str) -> float:
        """The mean of a score over the last tenth of the rounds; for a run that diverged the worst there is."""
        values = self.accuracy if score == "accuracy" else self.loss
        last = values[-max(1, round(LAST * len(values))) :]
        worst = 0.0 if score == "accuracy" else float("inf")
        return sum(worst if value is None else value for value in last) / max(1, len(last)) if last else worst

    def rank(self, cell: Cell) -> tuple[float, ...]:
        """What tuning goes by, lower is better: rounds to the target, then the final score."""
        reached = None if cell.target is None else self.rounds_to(cell.target)
        final = self.final(cell.score)
        return (float("inf") if reached is None else reached, final if cell.score == "loss" else -final)


class Runs:
    """The folder of all runs."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder, self.inputs = folder, inputs

    def path(self, cell: Cell, tried: int, seed: int) -> Path:
        kind = "tune" if seed == TUNING_SEED else f"seed{seed}"
        return self.folder / cell.id / f"try{tried}-{kind}.json"

    def read(self, cell: Cell, tried: int, seed: int) -> Kept | None:
        """What the run gave, if it has ended and had these very settings."""
        path = self.path(cell, tried, seed)
        if not path.exists():
            return None
        kept = json.loads(path.read_text())
        return Kept(**kept["gave"]) if kept["asked"] == json.loads(json.dumps(_asked(cell, tried, seed))) else None

    def run(self, cell: Cell, tried: int, seed: int) -> Kept:
        """Run it, unless it has been run."""
        done = self.read(cell, tried, seed)
        if done is not None:
            return done
        asked = _asked(cell, tried, seed)
        started = time.monotonic()
        model, data = self.inputs.of(cell.model, seed)
        try:
            history = edgefl.simulate(model, data, workers=1, **asked)
        except UsageError:
            raise
        except edgefl.EdgeFLError as error:  # no round could be closed: every device diverged
            print(f"{cell.id}: {error}", flush=True)
            gave = Kept([], [], 0, 0, time.monotonic() - started, "")
        else:
            rounds = history.rounds
            gave = Kept(
                [record.accuracy for record in rounds], [record.loss for record in rounds],
                sum(record.bytes_up for record in rounds), sum(record.bytes_down for record in rounds),
                time.monotonic() - started, history.final.model_sha256,
            )  # fmt: skip
        self._write(self.path(cell, tried, seed), asked, gave)
        return gave

    def _write(self, path: Path, asked: dict[str, Any], gave: Kept) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"asked": asked, "gave": gave.__dict__}))
        partial.replace(path)

    def best_try(self, cell: Cell, cells: dict[str, Cell]) -> int | None:
        """The try that tuning has chosen; None: it has not ended."""
        if cell.same_tuning_as:
            return self.best_try(cells[cell.same_tuning_as], cells)
        if len(cell.tries) == 1:
            return 0
        kept = [self.read(cell, tried, TUNING_SEED) for tried in range(len(cell.tries))]
        if None in kept:
            return None
        return min(range(len(kept)), key=lambda tried: kept[tried].rank(cell))  # type: ignore[union-attr]

    def results(self, cell: Cell, cells: dict[str, Cell]) -> list[Kept]:
        """The final runs that have ended."""
        best = self.best_try(cell, cells)
        found = [] if best is None else [self.read(cell, best, seed) for seed in cell.seeds]
        return [kept for kept in found if kept is not None]


def _asked(cell: Cell, tried: int, seed: int) -> dict[str, Any]:
    """The arguments of simulate for one run."""
    rounds = cell.short if seed == TUNING_SEED else cell.most
    stop = {} if cell.target is None else {"target_accuracy": cell.target}
    return {**cell.settings, **cell.tries[tried], **stop, "rounds": rounds, "seed": seed}


def median_rounds(cell: Cell, kept: list[Kept]) -> float | None:
    """The median over seeds of the rounds to the target; None if most seeds did not reach it."""
    assert cell.target is not None
    reached = [kept_run.rounds_to(cell.target) for kept_run in kept]
    if not reached or sum(value is not None for value in reached) * 2 <= len(reached):
        return None
    return median(float("inf") if value is None else value for value in reached)
