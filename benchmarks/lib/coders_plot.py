"""The figure of codecs.py: error against real bytes, of Gaussian coordinates and of a real update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Curves = dict[str, list[dict[str, Any]]]


def draw(panels: dict[str, Curves], path: Path) -> None:
    """A panel a title; a line a codec, and the limit of Gaussian coordinates, 2^-2R."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4 * len(panels), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        rates = np.geomspace(0.02, 5, 200)
        axes.plot(rates, 4.0**-rates, color="0.6", linewidth=1, linestyle="--", label="Gaussian limit")
        for number, (name, rows) in enumerate(curves.items()):
            rows = sorted(rows, key=lambda row: row["bits"])
            axes.plot([row["bits"] for row in rows], [row["nmse"] for row in rows], marker="o", markersize=3,
                      linewidth=1.2, color=f"C{number % 10}", linestyle="-" if number < 10 else ":",
                      label=name)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=(0.02, 20), ylim=(3e-3, 2))
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("bits a coordinate, all bytes counted")
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("NMSE")
    grid[0].legend(frameon=False, fontsize=8, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
