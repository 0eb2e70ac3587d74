"""The options that every SPEC takes: holding out a test part, then filling and scaling by statistics of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import choice, numbers


def finish(
    dataset: Dataset, options: Mapping[str, str], test_fraction: float, seed: int, *, means: np.ndarray | None = None,
    gaps: bool = False,
) -> Dataset:  # fmt: skip
    """Apply the common options; a test part that the data brings along stays as it is. `means`, `gaps`: see load."""
    if "test" in options:
        if dataset.x_test is not None:
            raise UsageError(f"{dataset.name} has a test part of its own: leave out test={options['test']}")
        fractions = numbers(options, "test")
        test_fraction = fractions[0] if len(fractions) == 1 else math.nan
    if not 0 <= test_fraction < 1:
        shown = options.get("test", test_fraction)
        raise UsageError(f"a test part of {shown} can't be held out: give 0 (none) to less than 1")
    if dataset.x_test is None and test_fraction > 0:
        hold_out = _hold_out if dataset.series is None else _hold_out_the_end
        dataset = hold_out(dataset, test_fraction, seed)
    if dataset.gaps and not gaps:
        dataset = _fill(dataset, means)
    return _turn(_standardize(dataset, options))


def _hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Move a random `fraction` of the examples, at least one, to the test part."""
    n = len(dataset.x_train)
    num_test = max(1, round(n * fraction))
    if num_test >= n:
        text = f"too few examples ({n}) to hold any out"
        raise DataError(f"{dataset.name}: {text}: add more, or test=0", text)
    order = np.random.default_rng(seed).permutation(n)
    return _split(dataset, np.sort(order[num_test:]), np.sort(order[:num_test]))


def _hold_out_the_end(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Move the last windows of each device to the test part; those that share rows with them are left out."""
    assert dataset.series is not None
    devices = np.zeros(len(dataset.x_train), np.int64) if dataset.device_train is None else dataset.device_train
    train, test = [], []
    for device in np.unique(devices):
        own = np.flatnonzero(devices == device)
        held = max(1, round(len(own) * fraction))
        train.append(own[: max(0, len(own) - held - dataset.series.overlap)])
        test.append(own[len(own) - held :])
    kept = np.sort(np.concatenate(train))
    if not len(kept):
        text = f"too few windows ({len(devices)}) to hold any out"
        raise DataError(f"{dataset.name}: {text}: add rows, or test=0", text)
    return _split(dataset, kept, np.sort(np.concatenate(test)))


def _split(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> Dataset:
    """The same examples in two parts, by their numbers."""
    alike = dataset.y_train is dataset.x_train
    x_train, x_test = dataset.x_train[train], dataset.x_train[test]
    y_train, y_test = (x_train, x_test) if alike else (dataset.y_train[train], dataset.y_train[test])
    devices = None if dataset.device_train is None else dataset.device_train[train]
    return replace(dataset, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, device_train=devices)


def _fill(dataset: Dataset, means: np.ndarray | None) -> Dataset:
    """Put the mean of each feature, in the training part, where x has NaN; in place, without a copy of x."""
    parts = [x.reshape(-1, x.shape[-1]) for x in (dataset.x_train, dataset.x_test) if x is not None]
    if means is not None and means.shape != (parts[0].shape[1],):
        text = f"{parts[0].shape[1]} features, and means of {means.size}"
        raise DataError(f"{dataset.name}: {text}: name the features that the federation learns from", text)
    for column in range(parts[0].shape[1]):
        mean = _mean(parts[0][:, column]) if means is None else float(means[column])
        if math.isnan(mean) and any(np.isnan(part[:, column]).any() for part in parts):
            text = f"feature number {column + 1} has no value at all"
            named = f" ({dataset.columns[column]!r})" if dataset.columns else ""
            raise DataError(f"{dataset.name}: {text}{named}: leave it out with features=, or missing=value:0", text)
        for part in parts:
            values = part[:, column]
            values[np.isnan(values)] = mean
    return replace(dataset, gaps=False)


def _mean(values: np.ndarray) -> float:
    """The mean without NaN; NaN if there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else math.nan


def _turn(dataset: Dataset) -> Dataset:
    """Windows as the model wants them: (channels, time) if the SPEC says channels=first."""
    series = dataset.series
    if series is None or not series.channels_first:
        return replace(dataset, series=None)
    turned: dict[str, Any] = {
        name: np.ascontiguousarray(value.swapaxes(1, 2))
        for name in ("x_train", "x_test", "y_train", "y_test")
        if (value := getattr(dataset, name)) is not None and value.ndim == 3
    }
    return replace(dataset, series=None, **turned)


def _standardize(dataset: Dataset, options: Mapping[str, str]) -> Dataset:
    """z-score x, and float y, by the training part's statistics or by fixed numbers."""
    own = choice(options, "standardize", ("0", "1")) == "1"
    alike = dataset.y_train is dataset.x_train  # the features are the targets, and are scaled with them
    x_scale = _scale(options, "mean", "std", own, dataset.x_train, windows=dataset.series is not None)
    own_y = own and not dataset.targets  # of several targets some may be labels
    y_scale = None if alike else _scale(options, "target_mean", "target_std", own_y, dataset.y_train)
    if x_scale is not None:
        x_train = _z_score(dataset.x_train, *x_scale)
        x_test = None if dataset.x_test is None else _z_score(dataset.x_test, *x_scale)
        y_train, y_test = (x_train, x_test) if alike else (dataset.y_train, dataset.y_test)
        dataset = replace(dataset, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    if y_scale is not None and dataset.y_train.dtype == np.float32:
        y_test = None if dataset.y_test is None else _z_score(dataset.y_test, *y_scale)
        dataset = replace(dataset, y_train=_z_score(dataset.y_train, *y_scale), y_test=y_test)
    elif "target_mean" in options:
        raise UsageError(f"{dataset.name}: targets are labels: leave out target_mean and target_std")
    return dataset


def _scale(
    options: Mapping[str, str], mean_name: str, std_name: str, own: bool, values: np.ndarray, *, windows: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation, float32, one a column of `values` or one for all; None to leave them."""
    if mean_name not in options and std_name not in options:
        if not own:
            return None
        over = (0, 1) if windows else 0
        mean, std = values.mean(axis=over, dtype=np.float64), values.std(axis=over, dtype=np.float64)
        # A constant column has no information: it becomes 0, not NaN.
        return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
    if own or not (mean_name in options and std_name in options):
        raise UsageError(f"{mean_name}= and {std_name}= go together, and without standardize=1")
    fixed = [np.array(numbers(options, name), dtype=np.float32) for name in (mean_name, std_name)]
    columns = values.shape[-1] if values.ndim > 1 else 1
    for name, column in zip((mean_name, std_name), fixed, strict=True):
        if len(column) not in (1, columns):
            raise UsageError(f"{name}= has {len(column)} numbers for {columns} columns: give 1 or {columns}")
    if not (fixed[1] > 0).all():
        raise UsageError(f"{std_name}={options[std_name]}: standard deviations must be above 0")
    return fixed[0], fixed[1]


def _z_score(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    scaled = values.astype(np.float32)
    scaled -= mean
    scaled /= std
    return scaled
