"""The options that every SPEC takes: holding out a test part, then scaling by statistics of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import choice, numbers


def finish(dataset: Dataset, options: Mapping[str, str], test_fraction: float, seed: int) -> Dataset:
    """Apply the common options; a test part that the data brings along stays as it is."""
    if "test" in options:
        if dataset.x_test is not None:
            raise UsageError(f"{dataset.name} has a test part of its own: leave out test={options['test']}")
        fractions = numbers(options, "test")
        test_fraction = fractions[0] if len(fractions) == 1 else math.nan
    if not 0 <= test_fraction < 1:
        shown = options.get("test", test_fraction)
        raise UsageError(f"a test part of {shown} can't be held out: give 0 (none) to less than 1")
    if dataset.x_test is None and test_fraction > 0:
        dataset = _hold_out(dataset, test_fraction, seed)
    return _standardize(dataset, options)


def _hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Move a random `fraction` of the examples, at least one, to the test part."""
    n = len(dataset.x_train)
    num_test = max(1, round(n * fraction))
    if num_test >= n:
        text = f"too few examples ({n}) to hold any out"
        raise DataError(f"{dataset.name}: {text}: add more, or test=0", text)
    order = np.random.default_rng(seed).permutation(n)
    test, train = np.sort(order[:num_test]), np.sort(order[num_test:])
    return Dataset(
        dataset.x_train[train],
        dataset.y_train[train],
        dataset.x_train[test],
        dataset.y_train[test],
        None if dataset.device_train is None else dataset.device_train[train],
        dataset.name,
    )


def _standardize(dataset: Dataset, options: Mapping[str, str]) -> Dataset:
    """z-score x, and float y, by the training part's statistics or by fixed numbers."""
    own = choice(options, "standardize", ("0", "1")) == "1"
    x_scale = _scale(options, "mean", "std", own, dataset.x_train)
    y_scale = _scale(options, "target_mean", "target_std", own, dataset.y_train)
    if x_scale is not None:
        x_test = None if dataset.x_test is None else _z_score(dataset.x_test, *x_scale)
        dataset = replace(dataset, x_train=_z_score(dataset.x_train, *x_scale), x_test=x_test)
    if y_scale is not None and dataset.y_train.dtype == np.float32:
        y_test = None if dataset.y_test is None else _z_score(dataset.y_test, *y_scale)
        dataset = replace(dataset, y_train=_z_score(dataset.y_train, *y_scale), y_test=y_test)
    elif "target_mean" in options:
        raise UsageError(f"{dataset.name}: targets are labels: leave out target_mean and target_std")
    return dataset


def _scale(
    options: Mapping[str, str], mean_name: str, std_name: str, own: bool, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation, float32, one a column of `values` or one for all; None to leave them."""
    if mean_name not in options and std_name not in options:
        if not own:
            return None
        mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
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
