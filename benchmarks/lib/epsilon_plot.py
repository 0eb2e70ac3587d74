"""Rows of epsilon.py as small multiples: test accuracy against epsilon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

EPSILONS = (1.0, 2.0, 4.0, 8.0, 0.0)  # from left to right; 0: no noise
NAMES = ("1", "2", "4", "8", "no noise")
MODELS = {"2nn": "2NN (199,210 params)", "cnn": "CNN (1,663,370 params)", "small": "784-32-10 (25,450 params)"}
SHARES = {"all": "all", "quarter": "1/4", "sixteenth": "1/16"}
FLEET_COLORS = {100: "C0", 1000: "C2", 10_000: "C1"}
SHARE_COLORS = {"all": "C0", "quarter": "C3", "sixteenth": "C4"}
Rows = list[dict[str, Any]]


def draw(rows: Rows, path: Path) -> None:
    """A column for each model; above who takes part, below which share of the coordinates a round sends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    kinds = [kind for kind in (_fleets, _shares) if any(kind([r for r in rows if r["model"] == m]) for m in models)]
    figure = Figure(figsize=(5.2 * len(models), 3.8 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(kinds), len(models), squeeze=False, sharey=True)
    for down, kind in enumerate(kinds):
        for across, model in enumerate(models):
            axes, lines = grid[down, across], kind([row for row in rows if row["model"] == model])
            if not lines:
                axes.set_axis_off()
                continue
            for label, (style, line) in lines.items():
                _line(axes, label, style, line)
            rounds = sorted({row["rounds"] for _, line in lines.values() for row in line})
            told = " or ".join(map(str, rounds))
            axes.set_title(f"{MODELS[model]}, {told} rounds", fontsize=10, loc="left")
            axes.legend(frameon=False, fontsize=8, loc="lower right")
            if across == 0:
                axes.set_ylabel("test accuracy, %")
            if down == len(kinds) - 1:
                axes.set_xlabel("epsilon of all rounds, delta 1e-5 (smaller: more private)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


Lines = dict[str, tuple[dict[str, Any], Rows]]  # label -> how it is drawn, rows by epsilon


def _fleets(rows: Rows) -> Lines:
    """Fleets that take part in all rounds or in turn, with both kinds of noise."""
    found: Lines = {}
    for devices in (10_000, 1000, 100):
        ours = [row for row in rows if row["devices"] == devices]
        _add(found, f"{devices:,} devices, all in each round", {"color": FLEET_COLORS[devices], "marker": "o"},
             [row for row in ours if row["part"] == "all"])  # fmt: skip
        turns = [row for row in ours if row["part"] == "turns"]
        for word, dash, marker in (("correlated", "-", "s"), ("independent", "--", "v")):
            style = {"color": "C5" if devices == 10_000 else "C2", "linestyle": dash, "marker": marker}
            chosen = [row for row in turns if row["noise"].startswith("band") == (word == "correlated")]
            both = chosen + [row for row in turns if row["noise"] == "none" and chosen]
            _add(found, f"{devices:,}, a tenth in each, {word} noise", style, both)
    return found


def _shares(rows: Rows) -> Lines:
    """Shares of the coordinates, of the fleets that have them."""
    found: Lines = {}
    for devices, dash in ((10_000, "--"), (100, "-")):
        ours = [row for row in rows if row["devices"] == devices]
        if not any(row["part"] in ("quarter", "sixteenth") for row in ours):
            continue
        for part, share in SHARES.items():
            style = {"color": SHARE_COLORS[part], "linestyle": dash, "marker": "o"}
            _add(
                found, f"{devices:,} devices, {share} of the coordinates", style, [r for r in ours if r["part"] == part]
            )
    return found


def _add(found: Lines, label: str, style: dict[str, Any], rows: Rows) -> None:
    if rows:
        found[label] = style, sorted(rows, key=lambda row: EPSILONS.index(row["epsilon"]))


def _line(axes: Any, label: str, style: dict[str, Any], rows: Rows) -> None:
    at = [EPSILONS.index(row["epsilon"]) for row in rows]
    axes.plot(at, [row["accuracy"] for row in rows], linewidth=1.4, markersize=4, label=label, **style)
    worst, best = ([row[key] for row in rows] for key in ("worst", "best"))
    axes.fill_between(at, worst, best, color=style["color"], alpha=0.15, lw=0)
    axes.set_xticks(range(len(NAMES)), NAMES)
    axes.set(ylim=(0, 100))
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
