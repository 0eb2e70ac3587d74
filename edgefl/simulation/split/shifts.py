"""Shifts: what the examples of one device have and those of another have not, as in `iid+rotate:4+noise:0.1`.

A partition (partitions.py) says which examples a device has. A shift then changes them. Device k of n:

    noise:V    Gaussian noise of variance V (k + 1) / n on x, after Li et al. 2021 (NIID-Bench, arXiv:2102.02079):
               sensors that are worse and worse
    gain:S     x times exp(S z), z ~ N(0, 1) once for each device: sensors that are not calibrated
    rotate:G   square images turned by k mod G quarter turns (G = 4) or half turns (G = 2), as in Ghosh et al. 2020
               (arXiv:2006.04088)
    relabel:G  labels permuted as group k mod G has them; group 0 keeps them. The same x has another y elsewhere, which
               no single model can learn

Example i of the test part is changed as device i mod n would have it: it is what the fleet as a whole sees.

A new shift is a function and a line in `SHIFTS`. Not here: anything that a device or an aggregator does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ...core.seeds import derived_seed
from ...data import Dataset
from ...errors import UsageError, nearest
from .arguments import MOST
from .partitions import Partition, Parts, find, is_shared, labels_of, split

PLUS = re.compile(r"\+(?=[A-Za-z])")  # and not that of 1e+6
MOST_GAIN = 30.0  # of the exponent, so that a large S alone does not overflow

# x, y of a device, its number, and randomness for these examples -> x and y as the device has them
Pair = tuple[np.ndarray, np.ndarray]
Change = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], Pair]


def spread(dataset: Dataset, spec: str | Partition, devices: int, seed: int) -> tuple[Dataset, Parts]:
    """The examples as the devices have them, and which of them each device has. Raises UsageError.

    `spec` is a partition, perhaps with shifts behind it. The parts are those of `partitions.split`.
    """
    if not isinstance(spec, str):
        return dataset, split(dataset, spec, devices, seed)
    partition, *shifts = PLUS.split(spec)
    parts = split(dataset, partition, devices, seed)
    shared = is_shared(partition) or (shifts and sum(map(len, parts)) > len(np.unique(np.concatenate(parts))))
    if shifts and shared:
        raise UsageError(f"partition {partition!r} gives one example to several devices: it takes no +SHIFT")
    for position, shift in enumerate(shifts):
        dataset = _shifted(dataset, parts, shift, derived_seed(seed, "shift", position))
    return dataset, parts


def check(spec: str | Partition) -> None:
    """UsageError if there is no such partition, or no such shift behind it. No data are needed for that."""
    if not isinstance(spec, str):
        return
    partition, *shifts = PLUS.split(spec)
    find(partition)
    for shift in shifts:
        _read(shift)


def _read(spec: str) -> tuple[str, float]:
    """The name and the number of a shift."""
    name, _, argument = spec.partition(":")
    if name not in SHIFTS:
        raise UsageError(f"unknown shift {name!r}: {nearest(name, SHIFTS)}")
    value = math.nan
    with suppress(ValueError):
        value = float(argument)
    if not 0 <= value <= MOST:
        raise UsageError(f"shift {spec!r}: give a number of at least 0, as in {SHIFTS[name][1]}")
    return name, value


def _shifted(dataset: Dataset, parts: Parts, spec: str, seed: int) -> Dataset:
    name, value = _read(spec)
    make, _ = SHIFTS[name]
    change = make(value, dataset, len(parts), seed)
    x, y = _changed(dataset.x_train, dataset.y_train, parts, change, [seed, 0])
    dataset = replace(dataset, x_train=x, y_train=y)
    if dataset.x_test is None or dataset.y_test is None:
        return dataset
    tests = [np.arange(number, len(dataset.x_test), len(parts)) for number in range(len(parts))]
    x, y = _changed(dataset.x_test, dataset.y_test, tests, change, [seed, 1])
    return replace(dataset, x_test=x, y_test=y)


def _changed(x: np.ndarray, y: np.ndarray, parts: Parts, change: Change, seed: list[int]) -> Pair:
    """Copies of x and y, in which each part is as its device has it."""
    alike = y is x  # the features are the targets
    x, y = x.copy(), y.copy()
    for number, part in enumerate(parts):
        x[part], y[part] = change(x[part], y[part], number, np.random.default_rng([*seed, number]))
    return x, x if alike else y


def noise(variance: float, dataset: Dataset, devices: int, seed: int) -> Change:
    _require_floats("noise", dataset)

    def change(x: np.ndarray, y: np.ndarray, number: int, rng: np.random.Generator) -> Pair:
        return x + rng.normal(0.0, math.sqrt(variance * (number + 1) / devices), x.shape).astype(np.float32), y

    return change


def gain(spread: float, dataset: Dataset, devices: int, seed: int) -> Change:
    _require_floats("gain", dataset)
    exponents = np.random.default_rng(seed).normal(0.0, spread, devices)
    gains = np.exp(np.clip(exponents, -MOST_GAIN, MOST_GAIN)).astype(np.float32)
    return lambda x, y, number, rng: (x * gains[number], y)


def rotate(groups: float, dataset: Dataset, devices: int, seed: int) -> Change:
    if groups not in (2, 4):
        raise UsageError(f"shift rotate:{groups:g}: give 2 for half turns, 4 for quarter turns")
    shape = dataset.x_train.shape[1:]
    side = math.isqrt(shape[0]) if len(shape) == 1 else shape[-1]
    image = (*shape[:-2], side, side)
    if math.prod(image) != math.prod(shape) or (len(shape) > 1 and image != shape):
        raise UsageError(f"shift rotate turns square images, and an example of {dataset.name} has shape {shape}")

    def change(x: np.ndarray, y: np.ndarray, number: int, rng: np.random.Generator) -> Pair:
        turns = number % int(groups) * (4 // int(groups))
        return np.rot90(x.reshape(-1, *image), turns, (-2, -1)).reshape(x.shape), y

    return change


def relabel(groups: float, dataset: Dataset, devices: int, seed: int) -> Change:
    if groups < 1 or groups != int(groups):
        raise UsageError(f"shift relabel:{groups:g}: give a whole number of groups, at least 1")
    classes = max(int(y.max()) + 1 for y in (labels_of(dataset, "relabel"), dataset.y_test) if y is not None and len(y))

    def change(x: np.ndarray, y: np.ndarray, number: int, rng: np.random.Generator) -> Pair:
        group = number % int(groups)
        return x, np.random.default_rng([seed, group]).permutation(classes)[y] if group else y

    return change


def _require_floats(name: str, dataset: Dataset) -> None:
    if dataset.x_train.dtype != np.float32:
        raise UsageError(f"shift {name} changes numbers, and x of {dataset.name} are tokens: choose relabel")


# Name -> the function, and an example.
SHIFTS: dict[str, tuple[Callable[[float, Dataset, int, int], Change], str]] = {
    "noise": (noise, "noise:0.1"),
    "gain": (gain, "gain:0.5"),
    "rotate": (rotate, "rotate:4"),
    "relabel": (relabel, "relabel:4"),
}
