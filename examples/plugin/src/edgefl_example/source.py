"""`waves:N[?seed=S]`: N noisy sine waves of 16 samples, in three classes by their frequency."""

from __future__ import annotations

import numpy as np

from edgefl.data import Dataset
from edgefl.errors import UsageError

SAMPLES = 16


def read(rest: str, options: dict[str, str]) -> Dataset:
    """`rest` is what stands after the colon, `options` what stands after the question mark."""
    seed = options.pop("seed", "0")
    if options or not rest.isdecimal() or not seed.isdecimal():
        raise UsageError(f"waves:{rest}: write waves:N or waves:N?seed=S")
    rng = np.random.default_rng(int(seed))
    labels = rng.integers(0, 3, int(rest))
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1))
    time = np.linspace(0, 2 * np.pi, SAMPLES)
    waves = np.sin((labels[:, None] + 1) * time + phase) + rng.normal(0, 0.1, (len(labels), SAMPLES))
    return Dataset(waves.astype(np.float32), labels)
