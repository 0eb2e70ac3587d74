"""`cifar10:DIR`: the binary version of CIFAR-10 (Krizhevsky 2009): data_batch_1.bin to _5.bin, and test_batch.bin.

A record is a byte of label and 3072 bytes of pixels: 1024 of red, 1024 of green, 1024 of blue, each row by row. The
Python version is pickled, which can run code: it is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .options import existing_path, refuse_unknown

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
RECORD = 1 + 3072
FOLDER = "cifar-10-batches-bin"  # in the official archive
TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (n, 3, 32, 32) float32 in [0, 1], y (n,) labels 0 to 9. DIR is the folder or its parent. DataError."""
    refuse_unknown(options, "cifar10")
    folder = existing_path(rest)
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    x_train, y_train = _read_all(folder, TRAIN)
    x_test, y_test = _read_all(folder, ["test_batch.bin"])
    return Dataset(x_train, y_train, x_test, y_test, name="cifar10", labels=LABELS)


def _read_all(folder: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of some files, converted one file at a time: the floats take four times the files' size."""
    counts = [_records(folder / name) for name in names]
    x, y = np.empty((sum(counts), *SHAPE), np.float32), np.empty(sum(counts), np.int64)
    start = 0
    for name, count in zip(names, counts, strict=True):
        rows = slice(start, start + count)
        x[rows], y[rows] = _read(folder / name, count)
        start += count
    x /= np.float32(255)
    return x, y


def _records(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError:
        text = f"no {path.name}"
        raise DataError(
            f"{text} in {path.parent}: unpack the binary version of CIFAR-10 there ({FOLDER}); the Python version is "
            "pickled and is not read",
            text,
        ) from None
    if size == 0 or size % RECORD:
        text = f"{path.name} has {size} bytes, no multiple of {RECORD}"
        raise DataError(f"{path}: {text}: fetch it again", text)
    return size // RECORD


def _read(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        records = np.fromfile(path, np.uint8, count * RECORD)
    except OSError as error:
        raise DataError(f"can't read {path}: {error}: fetch it again", f"can't read {path.name}") from None
    if len(records) != count * RECORD:
        raise DataError(f"{path} became shorter while it was read: try again", f"{path.name} became shorter")
    records = records.reshape(count, RECORD)
    labels = records[:, 0]
    if labels.max() >= len(LABELS):
        text = f"{path.name}: record {int(labels.argmax())} has a label above 9"
        raise DataError(f"{text}: this is no file of CIFAR-10", text)
    return records[:, 1:].reshape(count, *SHAPE), labels
