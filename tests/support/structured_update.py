"""An update with structure, as real ones have it: rows and columns of different energies, a third of them dead."""

from __future__ import annotations

import numpy as np

from edgefl import _core
from edgefl.core.plan import Param

TENSORS = (Param("w", [240, 200]), Param("b", [200]), Param("k", [9, 4, 30]), Param("v", [300, 5]))
P = sum(int(np.prod(t.shape)) for t in TENSORS)


def structured(seed: int = 0) -> np.ndarray:
    """(P,) float32: rows and columns of w and k an octave or more apart, a third of them dead."""
    rng = np.random.default_rng(seed)
    parts = []
    for tensor in TENSORS:
        size = tensor.shape[-1]
        values = rng.normal(size=(int(np.prod(tensor.shape)) // size, size))
        for axis in ((-1, 1), (1, -1)):
            live = rng.random(values.shape[axis.index(-1)]) < 0.7
            values *= (live * np.exp2(rng.normal(size=len(live)) * 1.5)).reshape(axis)
        parts.append(values.ravel())
    return np.concatenate(parts).astype(np.float32)


def resealed(rest: bytes) -> bytes:
    return _core.crc32c(rest).to_bytes(4, "little") + rest
