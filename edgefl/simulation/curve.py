"""A picture of a run: accuracy and reporting devices by round. Needs matplotlib (extra `demo`)."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError
from ..history import RoundRecord


def draw(records: list[RoundRecord], path: Path, title: str) -> None:
    """Write a PNG; UsageError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("drawing a curve needs matplotlib: pip install edgefl-toolkit[demo]") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rounds = [record.round for record in records]
    scored = [(record.round, record.accuracy) for record in records if record.accuracy is not None]
    axes.bar(rounds, [record.reported for record in records], color="0.85", label="devices that reported")
    axes.set(xlabel="round", ylabel="devices that reported", title=title)
    right = axes.twinx()
    right.plot(*zip(*scored, strict=True) if scored else ([], []), color="C0", label="test accuracy")
    right.set(ylabel="test accuracy", ylim=(0, 1))
    figure.savefig(path, dpi=120)
