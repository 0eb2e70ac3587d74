"""The papers' figures and ours side by side, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from textwrap import fill

import byzantine
import karimireddy
import mcmahan
import reddi
from cells import Cell, Kept, Runs, median_rounds

TITLES = {
    "mcmahan-1": ("McMahan et al. 2017, table 1", mcmahan),
    "mcmahan-2": ("McMahan et al. 2017, table 2", mcmahan),
    "reddi": ("Reddi et al. 2021, table 1", reddi),
    "karimireddy": ("Karimireddy et al. 2020, table 3", karimireddy),
    "byzantine": ("The Byzantine grid", byzantine),
}
INTRODUCTION = """# Replication

What papers report, and what EdgeFL gives for the same experiment: `python benchmarks/replication/run.py --data FOLDER`
runs the cells below, and `--report FILE.md` writes this page from the runs. FOLDER holds `mnist/`, the four files of
MNIST, and `shakespeare/roles.jsonl.gz` ([your data](data.md)).

Each cell is tuned first: every learning rate of its row runs for a part of the rounds, with a seed of its own. The best
one then runs with each seed. *here* is the median over seeds of rounds, the mean over seeds of scores, and in brackets
the least and the most. *MB up* is the mean over seeds of the bytes that all devices sent, float32 unless the cell's
name says otherwise. *minutes* are of one core that had other work too. A cell named *defaults* has the codecs that
EdgeFL chooses by itself, with the rate that float32 was tuned to; its rounds are also given as a multiple of float32's.

"""
HEAD = "| cell | published | here | seeds | best | MB up | minutes |\n|---|---:|---:|---:|---|---:|---:|\n"


def write(cells: Iterable[Cell], runs: Runs) -> str:
    """All tables, and below each what was not run."""
    every = {cell.id: cell for cell in cells}
    parts = []
    for table, group in groupby(sorted(every.values(), key=lambda cell: list(TITLES).index(cell.table)), _table):
        members = list(group)
        title, module = TITLES[table]
        rows = [_row(cell, runs, every) for cell in members]
        told = [row for row in rows if row is not None]
        left = [cell.name for cell, row in zip(members, rows, strict=True) if row is None]
        what = (module.__doc__ or "").partition("\n\n")[2].strip()
        rows_told = HEAD + "\n".join(told) if told else ""
        parts.append(f"## {title}\n\n{what}\n\n{rows_told}{_left_out(left)}")
    return INTRODUCTION + "\n\n".join(parts) + "\n"


def _table(cell: Cell) -> str:
    return cell.table


def _row(cell: Cell, runs: Runs, cells: dict[str, Cell]) -> str | None:
    """One line, or None if no run of the cell has ended."""
    kept = runs.results(cell, cells)
    if not kept:
        return None
    best = runs.best_try(cell, cells)
    assert best is not None
    spent = sum(run.seconds for run in kept) / len(kept) / 60
    tried = ", ".join(f"{key} {value}" for key, value in cell.tries[best].items())
    megabytes = sum(run.bytes_up for run in kept) / len(kept) / 1e6
    ours = _ours(cell, kept) + _times(cell, kept, runs, cells)
    return f"| {cell.name} | {_published(cell)} | {ours} | {len(kept)} | {tried} | {megabytes:.1f} | {spent:.1f} |"


def _times(cell: Cell, kept: list[Kept], runs: Runs, cells: dict[str, Cell]) -> str:
    """The rounds of a cell with other codecs, as a multiple of those of the cell that it was tuned with."""
    if not cell.same_tuning_as or cell.target is None:
        return ""
    plain = cells[cell.same_tuning_as]
    ours, theirs = median_rounds(cell, kept), median_rounds(plain, runs.results(plain, cells))
    return f", {ours / theirs:.2f}×" if ours and theirs else ""


def _published(cell: Cell) -> str:
    if cell.target is None:
        return "" if cell.published is None else f"{cell.published:g}"
    return f"{cell.published:g} rounds" if cell.published is not None else "over 1,000"


def _ours(cell: Cell, kept: list[Kept]) -> str:
    """The median rounds to the target with the spread over seeds, or the mean score."""
    if cell.target is None:
        if all(run.final(cell.score) == 0.0 for run in kept):
            return "lost: its last rounds commit nothing"
        scale = 1000.0 if cell.score == "loss" else 100.0
        values = [scale * run.final(cell.score) for run in kept]
        return f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    reached = median_rounds(cell, kept)
    each = [run.rounds_to(cell.target) for run in kept]
    if reached is None:
        best = max(max((value or 0.0 for value in run.accuracy), default=0.0) for run in kept)
        return f"not in {max(len(run.accuracy) for run in kept)}: {best:.4f}"
    spread = f" ({min(each)} to {max(each)})" if len(kept) > 1 and None not in each else ""  # type: ignore[type-var]
    return f"{reached:g} round{'s' * (reached != 1)}{spread}"


def _left_out(names: list[str]) -> str:
    return "\n\n" + fill(f"Not run: {', '.join(names)}.", 120) if names else ""
