"""Whether the columns of a sample are so unlike in size that a model can't be trained on them as they are."""

from __future__ import annotations

import numpy as np

from ..settings import Settings

FAR, WIDE, NARROW = 3.0, 3.0, 0.1  # a mean, a deviation above and below which a column needs scaling


def needs_scaling(x: np.ndarray) -> bool:
    """x (n, ..., columns) float32."""
    if x.dtype != np.float32:
        return False
    mean, std = _statistics(x)
    return bool(((np.abs(mean) > FAR) | (std > WIDE) | ((std < NARROW) & (std > 0))).any())


def can_be_federated() -> bool:
    """Whether this version scales by what devices tell of their columns."""
    return any(name == "features" for name in Settings.__struct_fields__)


def fixed(x: np.ndarray, *, targets: bool) -> str:
    """Options of a SPEC that scale as this sample needs it; `targets`: those too, since they are the features."""
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in _statistics(x))
    options = f"mean={mean}&std={std}"
    return f"{options}&target_mean={mean}&target_std={std}" if targets else options


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = x.reshape(-1, x.shape[-1])
    std = rows.std(axis=0, dtype=np.float64)
    return rows.mean(axis=0, dtype=np.float64), np.where(std > 0, std, 1)
