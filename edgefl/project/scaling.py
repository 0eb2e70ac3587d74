"""Whether the columns of a sample, or its targets, are of a size that a model can't be trained on as they are.

Scaling by numbers of the sample stands in the SPEC; scaling that the federation learns stands in front of the model.
"""

from __future__ import annotations

import numpy as np

from ..data import Dataset, parse

FAR, WIDE, SMALL = 3.0, 3.0, 0.1  # a mean or a deviation above these, or no deviation as large as the last


def of_features(spec: str, dataset: Dataset) -> str:
    """`mean=...&std=...`, or "" if the features can stay as they are."""
    x = dataset.x_train
    if x.dtype != np.float32:
        return ""
    options = parse(spec)[2]
    if {"mean", "std", "standardize"} & set(options):
        return ""
    return _options("", _rows(x, options))


def of_targets(spec: str, dataset: Dataset) -> str:
    """`target_mean=...&target_std=...`, or "" if the targets can stay as they are, or are scaled with the features."""
    y = dataset.y_train
    alike = y is dataset.x_train or "target=*" in spec
    if y.dtype != np.float32 or alike or {"target_mean", "standardize"} & set(parse(spec)[2]):
        return ""
    return _options("target_", y.reshape(len(y), -1) if y.ndim <= 2 else y.reshape(-1, 1))


def _rows(x: np.ndarray, options: dict[str, str]) -> np.ndarray:
    """(rows, columns): the columns of a table, also of its windows; other arrays have one number for all."""
    if "window" in options:
        last = x.swapaxes(1, 2) if options.get("channels") == "first" else x
        return last.reshape(-1, last.shape[-1])
    return x if x.ndim == 2 else x.reshape(-1, 1)


def _options(prefix: str, rows: np.ndarray) -> str:
    mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    if np.abs(mean).max() <= FAR and SMALL <= std.max() <= WIDE:
        return ""
    std = np.where(std > 0, std, 1)
    numbers = (",".join(f"{value:.6g}" for value in values) for values in (mean, std))
    return "&".join(f"{prefix}{name}={text}" for name, text in zip(("mean", "std"), numbers, strict=True))
