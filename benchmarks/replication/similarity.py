"""The partition of Karimireddy et al. 2020, as a plug-in: `similarity:parts:S`, S % of each part drawn at random."""

from __future__ import annotations

import numpy as np

from edgefl.data import Dataset
from edgefl.errors import UsageError


def parts(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`argument` percent of the examples are dealt at random; the others, sorted by label, in consecutive pieces."""
    if not argument.isdecimal() or int(argument) > 100:
        raise UsageError(f"partition similarity:parts:{argument}: give a whole number of percent, 0 to 100")
    order = rng.permutation(len(dataset.y_train))
    drawn = len(order) * int(argument) // 100
    alike, others = order[:drawn], order[drawn:]
    by_label = others[np.argsort(dataset.y_train[others], kind="stable")]
    pieces = zip(np.array_split(alike, devices), np.array_split(by_label, devices), strict=True)
    return [np.concatenate(piece) for piece in pieces]
