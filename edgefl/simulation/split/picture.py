"""Split picture: a partition in one figure: who has how many examples of which label. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError
from .report import SplitReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 40  # devices; more are one picture of shares
MOST_NAMES = 20  # labels with a colour of their own
BLUE = "#3b6ea5"


def draw(found: SplitReport, path: Path) -> None:
    """Write the figure to `path`, in the format of its ending. UsageError where it can't be."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("drawing a split needs matplotlib: pip install edgefl-toolkit[demo]") from None
    bars = found.devices <= MOST_BARS
    figure = Figure(figsize=(9, min(10, 2.5 + 0.18 * found.devices) if bars else 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{found.partition} of {found.data}, {found.devices} devices, seed {found.seed}", fontsize=11)
    if found.counts and (not bars or len(found.labels) > MOST_NAMES):
        shares, sizes = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
        _draw_shares(shares, found)
        _draw_sizes(sizes, found)
    elif found.counts:
        _draw_labels(figure.subplots(), found)
    else:
        axes = figure.subplots()
        _draw_sizes(axes, found)
        axes.set_ylabel("device")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # a folder that is missing, an ending that matplotlib can't write
        raise UsageError(f"can't write the picture {path}: {error}") from None


def _draw_labels(axes: Axes, found: SplitReport) -> None:
    """A bar for each device, whose pieces are labels."""
    import matplotlib

    colours = matplotlib.colormaps["tab20" if len(found.labels) > 10 else "tab10"].colors  # type: ignore[attr-defined]
    counts = np.array(found.counts)
    left = np.zeros(found.devices)
    for label, name in enumerate(found.labels):
        axes.barh(np.arange(found.devices), counts[:, label], left=left, color=colours[label], label=name)
        left += counts[:, label]
    axes.invert_yaxis()
    axes.set_yticks(range(found.devices))
    axes.set_xlabel("examples" if sum(found.sizes) == int(counts.sum()) else "targets")
    axes.set_ylabel("device")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), title="label", frameon=False)


def _draw_shares(axes: Axes, found: SplitReport) -> None:
    """A row for each device, a column for each label; the darker, the larger its share of the device's examples."""
    counts = np.array(found.counts)
    shares = counts / counts.sum(axis=1, keepdims=True)
    image = axes.imshow(
        shares, aspect="auto", cmap="Blues", vmin=0, vmax=max(float(shares.max()), 1e-9), interpolation="nearest"
    )
    axes.set_xlabel("label")
    axes.set_ylabel("device")
    if len(found.labels) <= MOST_NAMES:
        axes.set_xticks(range(len(found.labels)), found.labels, rotation=45 if max(map(len, found.labels)) > 3 else 0)
    axes.figure.colorbar(image, ax=axes, location="left", shrink=0.7, label="share of the device's examples")


def _draw_sizes(axes: Axes, found: SplitReport) -> None:
    axes.barh(np.arange(found.devices), found.sizes, height=1.0 if found.devices > MOST_BARS else 0.8, color=BLUE)
    axes.set_ylim(found.devices - 0.5, -0.5)
    axes.set_xlabel("examples")
