"""A history as a figure: its scores against rounds, bytes, time or energy. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from .errors import UsageError, nearest
from .history_costs import AXES, costs
from .history_record import RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Axis = Literal["rounds", "megabytes", "hours", "joules"]


def draw(records: Sequence[RoundRecord], title: str, against: str) -> Figure:
    """A figure of its own, which matplotlib.pyplot does not know of; nothing to close. UsageError."""
    if against not in AXES:
        raise UsageError(f"unknown axis {against!r}: {nearest(against, AXES)}")
    places = [cost.on(against) for cost in costs(records)]
    if None in places:
        raise UsageError("nobody has said what devices spend: simulate with a world (--devices-file)")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("drawing a history needs matplotlib: pip install edgefl-toolkit[demo]") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=AXES[against], title=title)
    if against == "rounds":
        axes.bar([r.round for r in records], [r.reported for r in records], color="0.85", label="devices that reported")
        axes.set(ylabel="devices that reported")
        axes = axes.twinx()
    _scores(axes, records, [place for place in places if place is not None])
    return figure


def _scores(axes: Axes, records: Sequence[RoundRecord], places: Sequence[float]) -> None:
    at = list(zip(places, records, strict=True))
    scored = [(place, r.accuracy) for place, r in at if r.accuracy is not None and r.has_new_model]
    told = [(place, r.device_accuracy) for place, r in at if r.device_accuracy is not None]
    own = [(place, r.personal_accuracy) for place, r in at if r.personal_accuracy is not None]
    lines = (scored, "C0", "test accuracy"), (told, "C1", "accuracy on devices"), (own, "C2", "of their own models")
    for points, color, label in lines:
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=label)
    axes.set(ylabel="accuracy", ylim=(0, 1))
    if scored or told:
        axes.legend(loc="lower right")
