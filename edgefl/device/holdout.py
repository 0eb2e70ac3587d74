"""Hold-out: the examples that a device never trains on, and evaluates every model on that it receives.

Whether an example is held out depends only on the device's id and the example's index. It is the same in every round,
run and process, and examples do not change sides when new ones are appended. In a source whose rows shift, such as a
window over the last thousand, they do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.rows import Rows
from ..core.seeds import derived_seed

MIN_EXAMPLES = 5  # a device with fewer trains on all it has
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Shares(NamedTuple):
    """x (n, ...) and y (n, ...) to train on, `x_held` (m, ...) and `y_held` (m, ...) to evaluate on; m may be 0."""

    x: np.ndarray | Rows
    y: np.ndarray | Rows
    x_held: np.ndarray | Rows
    y_held: np.ndarray | Rows


def split(device: str, x: np.ndarray | Rows, y: np.ndarray | Rows, holdout: float) -> Shares:
    """Hold out about the share `holdout` of the examples, 0 <= holdout < 1; at 0 nothing is copied."""
    held = held_out(device, len(x), holdout)
    if not held.any():
        return Shares(x, y, x[:0], y[:0])
    return Shares(x[~held], y[~held], x[held], y[held])


def held_out(device: str, n: int, holdout: float) -> np.ndarray:
    """(n,) bool: example i is held out if its hash is below the share. At least one example is left to train on."""
    if holdout == 0 or n < MIN_EXAMPLES:
        return np.zeros(n, np.bool_)
    hashes = _hashes(derived_seed("holdout", device), n)
    held: np.ndarray = hashes < np.uint64(int(holdout * 2**64))
    held[np.argmax(hashes)] = False
    return held


def _hashes(seed: int, n: int) -> np.ndarray:
    """(n,) uint64: the first n outputs of SplitMix64 (Steele, Lea and Flood 2014), which are one hash an index."""
    z: np.ndarray = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
