"""Tables: a comparison as text, for a terminal and as Markdown alike, and its numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..plural import plural
from .added import UNPAIRED, not_shown
from .comparison import Comparison, Measure
from .grid import Cell, differing
from .intervals import Mean
from .protocols import budgets_of, costs_to_targets, groups, robustness
from .results import COSTS, UNITS
from .tuning import Tuned

NONE = "–"
NAMES = {"accuracy": "test accuracy, %", "loss": "test loss", "held_accuracy": "accuracy on held-out examples, %",
         "held_loss": "loss on held-out examples"}  # fmt: skip


def text(found: Comparison) -> str:
    """All of a comparison, as Markdown."""
    parts = [_head(found), *(_group(found, cells) for cells in groups(found)), _robust(found), tuning(found)]
    parts += [_list("Added, and not shown", not_shown(found.grid, found.added)), _failed(found)]
    return "\n".join(filter(None, parts)).rstrip() + "\n"


def csv_text(found: Comparison) -> str:
    """A line for each run: its cell, seed, quality at the end, and costs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = {name: found.at_end(name) for name in (found.quality, found.worst)}
    columns |= {cost: found.total(cost) for cost in COSTS}
    writer.writerow([*Cell._fields, "seed", *columns, "model_sha256"])
    for cell, runs in found.results.items():
        for seed, result in runs.items():
            values = [measure(result.curve) for measure in columns.values()]
            row = [repr(value) if math.isfinite(value) else "" for value in values]
            writer.writerow([*cell, "" if seed == UNPAIRED else seed, *row, result.model_sha256])
    return out.getvalue()


def rows_of(found: Comparison) -> list[dict[str, Any]]:
    """A row for each cell, for programs: means and half-widths over `n` seeds, null where there is none."""
    measures = {name: found.at_end(name) for name in (found.quality, found.worst)}
    measures |= {cost: found.total(cost) for cost in found.costs}
    rows = []
    for cell in found.cells():
        means = {name: found.mean(cell, measure) for name, measure in measures.items()}
        means["difference"] = found.against(cell, found.first(cell), measures[found.quality])
        tuned = found.tuned.get((cell.variant, cell.partition))
        numbers = {name: [_finite(mean.value), _finite(mean.half), mean.n] for name, mean in means.items()}
        rows.append({**cell._asdict(), **numbers, "tuned": dict(tuned.best) if tuned else {}})
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """Markdown with aligned columns, of which the first `texts` are text and the others numbers."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rules = ["-" * (w + 1) + ("-" if n < texts else ":") for n, w in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if n < texts else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(head), "|" + "|".join(rules) + "|", *map(line, rows)]) + "\n"


def score(mean: Mean, name: str, *, sign: bool = False) -> str:
    """A mean of accuracies in percent, or of losses, with its interval."""
    if not mean.n:
        return NONE
    scale, digits = (1.0, 4) if name.endswith("loss") else (100.0, 2)
    value = f"{scale * mean.value:{'+' if sign else ''}.{digits}f}"
    return value if math.isnan(mean.half) else f"{value} ±{scale * mean.half:.{digits}f}"


def cost(found: Comparison, cell: Cell, measure: Callable[[str], Measure], name: str) -> str:
    """A cell's mean cost, to three digits; joules as a range."""
    columns = ("joules_low", "joules_high") if name == "joules" else (name,)
    means = [found.mean(cell, measure(column)) for column in columns]
    return "–".join(number(mean.value) for mean in means) if means[0].n else NONE


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if not math.isfinite(value):
        return NONE
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}"


def _named(found: Comparison, cell: Cell) -> list[str]:
    """What tells a cell from others of its group."""
    return [cell.variant, cell.codec] if len(found.grid.codecs) > 1 else [cell.variant]


def _titles(found: Comparison) -> list[str]:
    return ["strategy", "codec"] if len(found.grid.codecs) > 1 else ["strategy"]


def _head(found: Comparison) -> str:
    grid = found.grid
    experiment, seeds = grid.experiment, len(grid.seeds)
    what = f"{experiment.model} on {experiment.data}, {plural(experiment.fleet.devices, 'device')}"
    interval = "means with 95 % intervals" if seeds > 1 else "no intervals"
    paired = ", paired by seed" if seeds > 1 else ""
    return (
        f"# Comparison\n\n{what}, {plural(seeds, 'seed')}: {interval}. Scores are means over the last "
        f"{found.last} rounds. Differences are from the first row{paired}.\n"
    )


def _group(found: Comparison, cells: list[Cell]) -> str:
    """All tables of the cells that are compared with each other."""
    title = " · ".join(word for word in (cells[0].partition, cells[0].faults) if word)
    return f"## {title}\n\n" + "\n".join(filter(None, (make(found, cells) for make in (_end, _budgets, _targets))))


def _end(found: Comparison, cells: list[Cell]) -> str:
    """What each cell has come to."""
    name, worst, costs = found.quality, found.worst, found.costs
    rows = []
    for cell in cells:
        tuned = found.tuned.get((cell.variant, cell.partition))
        rows.append([
            *_named(found, cell), *_scores(found, cell, found.at_end(name)),
            score(found.mean(cell, found.at_end(worst)), worst),
            *(cost(found, cell, found.total, c) for c in costs), *([_point(tuned)] if found.tuned else []),
        ])  # fmt: skip
    head = [*_titles(found), NAMES[name], "difference", "worst tenth of devices", *(UNITS[c] for c in costs)]
    return table([*head, *(["tuned"] if found.tuned else [])], rows, len(_titles(found)))


def _scores(found: Comparison, cell: Cell, measure: Measure) -> list[str]:
    """A cell's mean, and its difference from the first cell of its group."""
    first = found.first(cell)
    against = NONE if cell == first else score(found.against(cell, first, measure), found.quality, sign=True)
    return [score(found.mean(cell, measure), found.quality), against]


def _point(tuned: Tuned | None) -> str:
    return NONE if tuned is None else ", ".join(f"{name} {value}" for name, value in tuned.best.items())


def _budgets(found: Comparison, cells: list[Cell]) -> str:
    budgets = budgets_of(found, cells)
    measures = [found.under(found.quality, cost, budget) for cost, budget in budgets.items()]
    rows = [
        [*_named(found, cell), *(text for measure in measures for text in _scores(found, cell, measure))]
        for cell in cells
    ]
    how = "" if found.grid.experiment.compare.budgets else " Each budget is what the cheapest row spent in all."
    head = [text for c, budget in budgets.items() for text in (f"{number(budget)} {UNITS[c]}", "difference")]
    lead = f"Quality under a budget: {NAMES[found.quality]} when so much was spent.{how}"
    return f"{lead}\n\n{table([*_titles(found), *head], rows, len(_titles(found)))}" if budgets else ""


def _targets(found: Comparison, cells: list[Cell]) -> str:
    rows = [
        [*_named(found, row.cell), f"{100 * row.target:g} %", f"{row.reached} of {row.runs}",
         *(cost(found, row.cell, row.cost, c) for c in found.costs)]
        for row in costs_to_targets(found, cells)
    ]  # fmt: skip
    head = [*_titles(found), "target", "reached it", *(UNITS[c] for c in found.costs)]
    lead = "Cost to a target: what was spent until a round reached it, the mean over the runs that did."
    return f"{lead}\n\n{table(head, rows, len(_titles(found)) + 1)}" if rows else ""


def _robust(found: Comparison) -> str:
    rows = [
        [*_named(found, row.cell), row.cell.partition, row.cell.faults or "none", score(row.value, found.quality),
         score(row.lost, found.quality, sign=True)]
        for row in robustness(found)
    ]  # fmt: skip
    head = [*_titles(found), "partition", "faults", NAMES[found.quality], "difference"]
    lead = f"Differences are from the same row under faults {found.grid.faults[0] or 'none'}, paired by seed."
    return f"## Robustness\n\n{lead}\n\n{table(head, rows, len(_titles(found)) + 2)}" if rows else ""


def tuning(found: Comparison) -> str:
    """Every trial; "" if nothing was tuned."""
    if not found.tuned:
        return ""
    rows = list(trial_rows(found))
    most = max(len(tuned.trials) for tuned in found.tuned.values())
    how = (
        f"{most} trials of each strategy on each partition, on seeds of their own, judged by examples that the devices "
        "hold out.\n\n"
    )
    return f"## Tuning\n\n{how}{table(['strategy', 'partition', 'tried', 'verdict', 'held out'], rows, 4)}"


def trial_rows(found: Comparison) -> Iterator[list[str]]:
    """A row for each trial, the best of each strategy first."""
    for (variant, partition), tuned in found.tuned.items():
        edge = f"; at the end of the values of {', '.join(tuned.at_edge)}: try further ones" if tuned.at_edge else ""
        names = differing([trial.point for trial in tuned.trials]) or list(tuned.best)
        for place, trial in enumerate(tuned.trials):
            words = ", ".join(f"{name} {trial.point[name]}" for name in names)
            told = NONE if math.isnan(trial.score) else _held(trial.score)
            short = trial.rounds < tuned.trials[0].rounds
            left_out = f"left out after {trial.rounds} round{'s' * (trial.rounds > 1)}"
            verdict = left_out if short else "" if place else f"best{edge}"
            yield [variant, partition, words, verdict, told]


def _held(value: float) -> str:
    return f"{100 * value:.2f}" if value >= 0 else f"loss {-value:.4f}"


def _failed(found: Comparison) -> str:
    return _list("Not run", [f"{label}: {why}" for label, why in found.failed.items()])


def _list(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n" if lines else ""
