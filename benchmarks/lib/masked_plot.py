"""Curves of masked.py as small multiples: test accuracy against the bytes that go up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

DEVICES = 100
LABELS = {
    "fp32": "float32", "ecq": "ecq, not masked", "masked-4": "masked, 1/4", "masked-8": "masked, 1/8",
    "masked-16": "masked, 1/16", "masked-8-10-bits": "masked, 1/8, 10 bits",
}  # fmt: skip
COLORS = {name: f"C{at}" for at, name in enumerate(LABELS)}
TITLES = {"2nn": "2NN", "cnn": "CNN", "iid": "IID", "shards:2": "two labels a device"}
Kept = dict[str, list[dict[str, Any]]]  # setting -> a run for each seed


def draw(found: dict[str, Kept], path: Path) -> None:
    """A panel for each "MODEL PARTITION"; lines are means over seeds, bands reach from the worst to the best."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(found), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, by_setting) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for setting in (each for each in LABELS if each in by_setting):
            _line(axes, setting, by_setting[setting])
        rounds, seeds = by_setting["fp32"][0]["rounds"][-1], len(by_setting["fp32"])
        model, partition = name.split(" ")
        axes.set_title(
            f"{TITLES[model]} · {TITLES[partition]}, {rounds} rounds, {_seeds(seeds)}", fontsize=10, loc="left"
        )
        axes.set(xscale="log", ylim=(80, 100), xlabel="MB that a device of the fleet sent, on average")
        axes.set_ylabel("test accuracy, %")
        axes.xaxis.set_major_formatter(lambda megabytes, _: f"{megabytes:g}")
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _seeds(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "one seed"


def _line(axes: Any, setting: str, runs: list[dict[str, Any]]) -> None:
    accuracy = 100 * np.array([run["accuracy"] for run in runs])
    megabytes = np.mean([run["bytes_up"] for run in runs], axis=0) / DEVICES / 1e6
    axes.plot(megabytes, accuracy.mean(axis=0), color=COLORS[setting], linewidth=1.4, label=LABELS[setting])
    if len(runs) > 1:
        axes.fill_between(
            megabytes, accuracy.min(axis=0), accuracy.max(axis=0), color=COLORS[setting], alpha=0.15, lw=0
        )
