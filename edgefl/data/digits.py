"""`digits`: the 1,797 digits of 8x8 that scikit-learn carries (Alpaydin & Kaynak 1998, UCI), offline."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import refuse_unknown

FILE = "datasets/data/digits.csv.gz"  # in scikit-learn: a row has the pixels, 0 to 16, and the label


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (1797, 64) float32 in [0, 1], y (1797,) labels 0 to 9. DataError without scikit-learn."""
    refuse_unknown(options, "digits")
    if rest:
        raise UsageError(f"digits takes no path: leave out {rest!r}")
    x, y = _read_file() or _load()
    return Dataset(x / 16, y, name="digits")


def _read_file() -> tuple[np.ndarray, np.ndarray] | None:
    """From scikit-learn's file, if it is where it has always been: to import scikit-learn takes a second or two."""
    found = find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder, FILE)).is_file():
            with gzip.open(path, "rt") as file:
                table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(int)
    return None


def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        text = "digits needs scikit-learn"
        raise DataError(f"{text}: pip install edgefl-toolkit[demo]", text) from None
    x, y = load_digits(return_X_y=True)
    return x, y
