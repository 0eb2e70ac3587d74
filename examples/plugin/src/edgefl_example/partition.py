"""`ramp`: device i has i times as many examples as the first; `ramp:P` has them grow as i to the power P."""

from __future__ import annotations

import numpy as np

from edgefl.data import Dataset


def ramp(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One array of indices for each device; every device has at least one."""
    n = len(dataset.x_train)
    sizes = np.arange(1, devices + 1) ** float(argument or 1)
    ends = np.rint(np.cumsum(sizes / sizes.sum())[:-1] * (n - devices)).astype(np.int64)
    return np.split(rng.permutation(n), ends + np.arange(1, devices))
