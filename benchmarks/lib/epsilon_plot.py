"""Rows of epsilon.py as small multiples: test accuracy against epsilon."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

EPSILONS = (1.0, 2.0, 4.0, 8.0, 0.0)  # from left to right; 0: no noise
NAMES = ("1", "2", "4", "8", "no noise")
MODELS = {"2nn": "2NN, 199,210 params", "cnn": "CNN, 1,663,370 params", "small": "784-32-10, 25,450 params"}
SHARES = {"all": "all", "quarter": "1/4", "sixteenth": "1/16"}
CHANCE = 10.0  # percent, where a model stands whose training diverged
Rows = list[dict[str, Any]]
Lines = list[tuple[str, dict[str, Any], Rows]]  # label, how it is drawn, rows from the smallest epsilon


def draw(rows: Rows, path: Path) -> None:
    """Panels: who takes part, for each model; which share of the coordinates a round sends; which model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def of(**wanted: Any) -> Rows:
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]

    panels = {f"{MODELS[model]}{_told(of(model=model))}": _fleets(of(model=model)) for model in ("2nn", "cnn")}
    panels["2NN: share of the coordinates, 100 devices"] = _shares(of(model="2nn", devices=100))
    panels["models, 100 devices, all in each round"] = _models(of(devices=100, part="all"))
    panels = {title: lines for title, lines in panels.items() if len(lines) > 1}
    down = -(-len(panels) // 2)
    figure = Figure(figsize=(10.4, 3.8 * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(down, 2, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for at, (axes, title) in enumerate(zip(grid, panels, strict=False)):
        for label, style, line in panels[title]:
            _line(axes, label, style, line)
        axes.set_title(title, fontsize=10, loc="left")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        if at % 2 == 0:
            axes.set_ylabel("test accuracy, %")
        if at >= len(panels) - 2:
            axes.set_xlabel("epsilon of all rounds, delta 1e-5 (to the left: more private)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _told(rows: Rows) -> str:
    """How long the rows ran, and how often."""
    if not rows:
        return ""
    few, many = (bound(row["seeds"] for row in rows) for bound in (min, max))
    seeds = "one seed" if many == 1 else f"{many} seeds" if few == many else f"{few} to {many} seeds"
    return f": {rows[0]['rounds']} rounds, {seeds}"


def _fleets(rows: Rows) -> Lines:
    """Fleets that take part in all rounds or in turn, with both kinds of noise."""
    found: Lines = []
    for devices, color in ((10_000, "C1"), (1000, "C2"), (100, "C0")):
        ours = [row for row in rows if row["devices"] == devices]
        style = {"color": color, "marker": "o"}
        _add(found, f"{devices:,} devices, all in each round", style, [r for r in ours if r["part"] == "all"])
        turns = [row for row in ours if row["part"] == "turns"]
        for word, dash, marker in (("correlated", "-", "s"), ("independent", "--", "v")):
            style = {"color": "C5" if devices == 10_000 else color, "linestyle": dash, "marker": marker}
            chosen = [row for row in turns if row["noise"].startswith("band") == (word == "correlated")]
            plain = [row for row in turns if row["noise"] == "none" and word == "correlated"]
            _add(found, f"{devices:,} devices, a tenth in each, {word} noise", style, [*chosen, *plain])
    return found


def _shares(rows: Rows) -> Lines:
    found: Lines = []
    for (part, share), color in zip(SHARES.items(), ("C0", "C3", "C4"), strict=True):
        chosen = [row for row in rows if row["part"] == part]
        sent = f", {chosen[0]['update_bytes'] / 1e6:.2g} MB an update" if chosen else ""
        _add(found, f"{share}{sent}", {"color": color, "marker": "o"}, chosen)
    return found


def _models(rows: Rows) -> Lines:
    found: Lines = []
    for (model, title), color in zip(MODELS.items(), ("C0", "C6", "C7"), strict=True):
        chosen = [row for row in rows if row["model"] == model]
        rounds = f", {chosen[0]['rounds']} rounds" if chosen else ""
        _add(found, f"{title}{rounds}", {"color": color, "marker": "o"}, chosen)
    return found


def _add(found: Lines, label: str, style: dict[str, Any], rows: Rows) -> None:
    if rows:
        found.append((label, style, sorted(rows, key=lambda row: EPSILONS.index(row["epsilon"]))))


def _line(axes: Any, label: str, style: dict[str, Any], rows: Rows) -> None:
    at = [EPSILONS.index(row["epsilon"]) for row in rows]
    axes.plot(at, [row["accuracy"] for row in rows], linewidth=1.4, markersize=4, label=label, **style)
    for x in (x for x, row in zip(at, rows, strict=True) if math.isnan(row["accuracy"])):
        axes.plot(x, CHANCE, marker="x", color=style["color"])
        axes.annotate("diverges", (x, CHANCE), textcoords="offset points", xytext=(8, -3), fontsize=8)
    worst, best = ([row[key] for row in rows] for key in ("worst", "best"))
    axes.fill_between(at, worst, best, color=style["color"], alpha=0.15, lw=0)
    axes.set_xticks(range(len(NAMES)), NAMES)
    axes.set(ylim=(0, 100))
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
