"""Figures: quality against each cost, small multiples with a panel for each partition and faults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .added import Added
from .comparison import Comparison
from .grid import Cell
from .protocols import groups
from .results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ("-", "--", ":", "-.")
POINTS = 200
APART = 5.0
LABELS = {"rounds": "rounds", "megabytes": "MB that all devices sent and received", "hours": "simulated hours",
          "joules": "joules of all devices"}  # fmt: skip


def draw(found: Comparison, folder: Path) -> list[Path]:
    """One PNG for each cost that was measured; UsageError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("figures need matplotlib: pip install edgefl-toolkit[demo], or give --no-figures") from None
    drawn = []
    for cost in found.costs:
        panels = groups(found)
        figure = Figure(figsize=(1.5 + 4.2 * len(panels), 6.4), layout="constrained")
        FigureCanvasAgg(figure)
        _fill(figure, found, panels, cost)
        path = folder / f"against-{cost}.png"
        figure.savefig(path, dpi=130)
        drawn.append(path)
    return drawn


def _fill(figure: Figure, found: Comparison, panels: list[list[Cell]], cost: str) -> None:
    grid = figure.subplots(2, len(panels), squeeze=False, sharex="col", sharey="row")
    titles = {found.quality: found.quality.replace("held_", "held-out "), found.worst: "worst tenth of devices"}
    for column, cells in enumerate(panels):
        for row, (name, title) in enumerate(titles.items()):
            axes = grid[row, column]
            for cell in cells:
                _line(axes, found, cell, name, cost)
            axes.grid(color="0.92")
            axes.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axes.set_ylabel(title if name.endswith("loss") else f"{title}, %")
        words = [word for word in (cells[0].partition, cells[0].faults) if word]
        grid[0, column].set_title(" · ".join(words), fontsize=10, loc="left")
        grid[1, column].set_xlabel(LABELS[cost])
        totals = [found.mean(cell, found.total(cost)).value for cell in cells]
        if max(totals) > APART * min(totals):  # else the cheapest would be a line at the edge
            grid[1, column].set_xscale("log")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside right upper")


def _line(axes: Axes, found: Comparison, cell: Cell, name: str, cost: str) -> None:
    """A cell's mean over seeds; the band reaches from the least to the greatest."""
    curves = [curve for result in found.results.get(cell, {}).values() if len((curve := _curve(result, name, cost))[0])]
    if not curves:
        return
    # One run ends earlier than another: the mean is of the part that all have.
    x = np.linspace(max(c[0][0] for c in curves), min(c[0][-1] for c in curves), POINTS)
    scale = 1.0 if name.endswith("loss") else 100.0
    y = scale * np.array([np.interp(x, *curve) for curve in curves])
    variants = list(dict.fromkeys(each.variant for each in found.cells()))
    codecs = list(dict.fromkeys(each.codec for each in found.cells()))
    style: dict[str, Any] = {
        "color": f"C{variants.index(cell.variant) % 10}",
        "linestyle": STYLES[codecs.index(cell.codec) % len(STYLES)],
    }
    label = " · ".join(word for word in (cell.variant, cell.codec) if word)
    axes.plot(x, y.mean(axis=0), linewidth=1.4, label=label, **style)
    axes.fill_between(x, y.min(axis=0), y.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)


def _curve(result: Result | Added, name: str, cost: str) -> tuple[np.ndarray, np.ndarray]:
    """Costs and values of the rounds that have both."""
    x, y = result.curve.column(cost), result.curve.column(name)
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]
