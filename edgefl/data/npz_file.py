"""`npz:FILE`: NumPy arrays x_train, y_train[, x_test, y_test][, device_train], or x, y. Never unpickles."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..later import Later, standing_in
from .arrays import OPTIONS, from_arrays_with
from .dataset import Dataset
from .options import existing_path, refuse_unknown

with standing_in(Later("bz2"), Later("lzma")):  # which numpy does not write
    import zipfile


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Load the arrays by name; others in the file are left alone. Raises DataError."""
    refuse_unknown(options, "npz", OPTIONS)
    path = existing_path(rest)
    with open_npz(path) as arrays:
        return from_arrays_with(options, arrays, path.name)


@contextmanager
def open_npz(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The file's arrays by name, read on access; whatever is wrong with it is a DataError."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            text = f"{path.name} holds one bare array"
            raise DataError(f"{text}: save named ones with numpy.savez", text)
        with file:
            yield file
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        text = f"can't read {path}: {error}: write it anew with numpy.savez, numbers only"
        raise DataError(text, f"can't read {path}: not an .npz file of numbers") from None
    except MemoryError:
        text = f"{path.name} has an array that is larger than the memory"
        raise DataError(f"{text}: write it anew, in several files for folder:", text) from None
