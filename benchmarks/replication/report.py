"""The papers' figures and ours side by side, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

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
        parts.append(f"## {title}\n\n{what}\n\n{HEAD}" + "\n".join(told) + _left_out(left))
    return "\n\n".join(parts) + "\n"


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
    return (
        f"| {cell.name} | {_published(cell)} | {_ours(cell, kept)} | {len(kept)} | {tried} | {megabytes:.1f} | "
        f"{spent:.1f} |"
    )


def _published(cell: Cell) -> str:
    if cell.target is None:
        return "" if cell.published is None else f"{cell.published:g}"
    return f"{cell.published:g} rounds" if cell.published is not None else "over 1,000"


def _ours(cell: Cell, kept: list[Kept]) -> str:
    """The median rounds to the target with the spread over seeds, or the mean score."""
    if cell.target is None:
        scale = 1000.0 if cell.score == "loss" else 100.0
        values = [scale * run.final(cell.score) for run in kept]
        return f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    reached = median_rounds(cell, kept)
    each = [run.rounds_to(cell.target) for run in kept]
    if reached is None:
        best = max(max((value or 0.0 for value in run.accuracy), default=0.0) for run in kept)
        return f"not in {max(len(run.accuracy) for run in kept)}: {best:.4f}"
    spread = f" ({min(each)} to {max(each)})" if len(kept) > 1 and None not in each else ""  # type: ignore[type-var]
    return f"{reached:g} rounds{spread}"


def _left_out(names: list[str]) -> str:
    return f"\n\nNot run: {', '.join(names)}." if names else ""
