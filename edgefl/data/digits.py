"""`digits`: the 1,797 digits of 8x8 that scikit-learn carries (Alpaydin & Kaynak 1998, UCI), offline."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import refuse_unknown


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (1797, 64) float32 in [0, 1], y (1797,) labels 0 to 9. DataError without scikit-learn."""
    refuse_unknown(options, "digits")
    if rest:
        raise UsageError(f"digits takes no path: leave out {rest!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        text = "digits needs scikit-learn"
        raise DataError(f"{text}: pip install edgefl-toolkit[demo]", text) from None
    x, y = load_digits(return_X_y=True)
    return Dataset(x / 16, y, name="digits")
