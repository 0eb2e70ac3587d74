"""Runs of curves.py as numbers, and as small multiples: test accuracy against what a device sends and receives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LAST = 10  # rounds whose mean accuracy is a run's
TITLES = {
    "2nn": "2NN, 20 devices, all in each round",
    "cnn": "CNN, 20 devices, all in each round",
    "2nn-tenth": "2NN, 100 devices, ten in each round",
}
COLORS = {"fp32": "C0", "ecq": "C1", "ecq-sparse": "C2", "auto": "C3", "qsgd": "C4", "topk": "C5", "sign": "C6"}
SPLITS = {"shards:2": "two labels a device", "iid": "IID"}


@dataclass(frozen=True)
class Run:
    """One run of a fleet by rounds: accuracy (R,), bytes up, down, and of the same models in float32 one way (R,)."""

    accuracy: np.ndarray
    up: np.ndarray
    down: np.ndarray
    float32: np.ndarray
    devices: int

    @classmethod
    def of(cls, rounds: list[dict[str, Any]], devices: int) -> Run:
        columns = ("accuracy", "bytes_up", "bytes_down", "float32_bytes")
        return cls(*(np.array([row[column] for row in rounds], float) for column in columns), devices)

    @property
    def final_accuracy(self) -> float:
        return float(self.accuracy[-LAST:].mean())

    @property
    def ratio_up(self) -> float:
        return float(self.float32.sum() / self.up.sum())

    @property
    def ratio_down(self) -> float:
        return float(self.float32.sum() / self.down.sum())

    @property
    def ratio_down_later(self) -> float:
        """After the round that brings manifest and first model."""
        return float(self.float32[1:].sum() / self.down[1:].sum())

    @property
    def megabytes(self) -> np.ndarray:
        """(R,) up and down until each round's end, a device of the fleet."""
        return (self.up + self.down).cumsum() / self.devices / 1e6


Found = dict[tuple[str, str], dict[str, list[Run]]]  # (model, partition) -> setting -> a run a seed


def draw(found: Found, path: Path) -> None:
    """A panel for each model and partition; lines are means over seeds, bands reach from the worst to the best."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(model for model, _ in found))
    partitions = list(dict.fromkeys(partition for _, partition in found))
    figure = Figure(figsize=(5.2 * len(partitions), 3.6 * len(models)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(models), len(partitions), squeeze=False, sharex="row", sharey=True)
    for row, model in enumerate(models):
        for column, partition in enumerate(partitions):
            axes = grid[row, column]
            _panel(axes, found[model, partition])
            axes.set_title(f"{TITLES[model]} · {SPLITS[partition]}", fontsize=10, loc="left")
            if column == 0:
                axes.legend(frameon=False, fontsize=9, loc="lower right")
                axes.set_ylabel("test accuracy, %")
            if row == len(models) - 1:
                axes.set_xlabel("MB that a device sent and received")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _panel(axes: Any, by_setting: dict[str, list[Run]]) -> None:
    for setting, runs in by_setting.items():
        color = COLORS[setting]
        accuracy = 100 * np.array([run.accuracy for run in runs])
        megabytes = np.mean([run.megabytes for run in runs], axis=0)
        axes.plot(megabytes, accuracy.mean(axis=0), color=color, linewidth=1.4, label=setting)
        axes.fill_between(megabytes, accuracy.min(axis=0), accuracy.max(axis=0), color=color, alpha=0.15, lw=0)
    axes.set(xscale="log", ylim=(80, 100))
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
