"""Split report: how a partition has dealt a data set out: sizes, labels, and how far devices are from the whole.

Distances are from the distribution that all dealt examples have together:

    labels    the share of a device's examples that would need another label to be like the whole: half the sum of
              |p - q| over the labels. For a sequence with a target for each step, every step counts
    features  sqrt(sum of (m_k - m)^2 + (s_k - s)^2) / sqrt(sum of s^2) over the features, where m are means and s
              standard deviations: the 2-Wasserstein distance of normal distributions, by the size of the whole's

Both are above 0 by chance where devices have few examples, so the report also has what a random deal in the same sizes
gives. Drawing is in picture.py.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ...core.seeds import derived_seed
from ...data import Dataset
from ...errors import UsageError
from .partitions import Parts

MOST_LABELS = 4096
MOST_EXAMPLES = 20_000_000  # of all devices, which may share them


class Spread(msgspec.Struct, frozen=True):
    """Of one number a device: the smallest, the middle and the largest."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(float(values.min()), float(np.median(values)), float(values.max()))


class SplitReport(msgspec.Struct, frozen=True):
    """`counts`, by device: how many examples of each of `labels`; () without labels. `tenth`: the share of the examples
    that the largest tenth of the devices has."""

    data: str
    partition: str
    seed: int
    devices: int
    examples: int
    unused: int
    sizes: list[int]
    labels: list[str]
    counts: list[list[int]]
    size: Spread
    tenth: float
    labels_each: Spread | None
    label_distance: Spread | None
    label_distance_by_chance: Spread | None
    feature_distance: Spread | None
    feature_distance_by_chance: Spread | None


def report(dataset: Dataset, parts: Parts, *, partition: str, seed: int) -> SplitReport:
    """What `parts` of `dataset` are like. UsageError if they are more than memory should hold."""
    sizes = np.array([len(part) for part in parts])
    if sizes.sum() > MOST_EXAMPLES:
        raise UsageError(f"{len(parts)} devices have {sizes.sum():,} examples in all: look at fewer devices")
    dealt = np.concatenate(parts)
    chance = np.split(np.random.default_rng(derived_seed(seed, "chance")).permutation(dealt), np.cumsum(sizes)[:-1])
    codes, names = _codes(dataset)
    counts = None if codes is None else _counts(codes, parts, len(names))
    by_chance = None if codes is None else _counts(codes, chance, len(names))
    unused = len(dataset.x_train) - len(np.unique(dealt))
    largest = np.sort(sizes)[::-1][: max(1, round(len(sizes) / 10))]
    return SplitReport(
        dataset.name, partition, seed, len(parts), len(dealt), unused, sizes.tolist(), names,
        [] if counts is None else counts.tolist(), Spread.of(sizes), float(largest.sum() / sizes.sum()),
        None if counts is None else Spread.of((counts > 0).sum(axis=1)),
        _label_distance(counts), _label_distance(by_chance),
        _feature_distance(dataset.x_train, parts), _feature_distance(dataset.x_train, chance),
    )  # fmt: skip


def _codes(dataset: Dataset) -> tuple[np.ndarray | None, list[str]]:
    """(n, steps) the place of each target among the labels, and their names; None where targets are numbers."""
    y = dataset.y_train
    if y.dtype != np.int64:
        return None, []
    found, codes = np.unique(y, return_inverse=True)
    if len(found) > MOST_LABELS:
        return None, []
    known = dict(enumerate(dataset.labels))
    return codes.reshape(len(y), -1), [known.get(int(label), str(label)) for label in found]


def _counts(codes: np.ndarray, parts: Parts, labels: int) -> np.ndarray:
    """(devices, labels) int64."""
    return np.stack([np.bincount(codes[part].ravel(), minlength=labels) for part in parts])


def _label_distance(counts: np.ndarray | None) -> Spread | None:
    if counts is None:
        return None
    shares = counts / counts.sum(axis=1, keepdims=True)
    return Spread.of(np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1) / 2)


def _feature_distance(x: np.ndarray, parts: Parts) -> Spread | None:
    """None for tokens, whose numbers are no quantities, and where all examples are the same."""
    if x.dtype != np.float32:
        return None
    rows = x.reshape(len(x), -1)
    shares = np.array([len(part) for part in parts]) / sum(map(len, parts))
    means = np.stack([rows[part].mean(axis=0, dtype=np.float64) for part in parts])
    stds = np.stack([rows[part].std(axis=0, dtype=np.float64) for part in parts])
    mean = shares @ means
    std = np.sqrt(shares @ (stds**2 + (means - mean) ** 2))
    scale = float(np.square(std).sum())
    if not scale > 0:
        return None
    return Spread.of(np.sqrt(((means - mean) ** 2 + (stds - std) ** 2).sum(axis=1) / scale))
