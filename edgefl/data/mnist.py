"""`mnist:DIR`: the four IDX files of MNIST (LeCun, Cortes, Burges 1998), or of any set in the same format.

IDX: big-endian uint32 magic (0x08, type uint8; then the number of axes), one uint32 an axis, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Dataset
from .npz_file import open_npz
from .options import choice, existing_path, refuse_unknown

IDX_UINT8 = 0x0800
MAX_INFLATION = 1032  # deflate's limit: no file inflates to more than this many times its size
WRITERS = "mnist_writer_ids.npz"


FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def read_fashion(rest: str, options: Mapping[str, str]) -> Dataset:
    """`fashion-mnist:DIR`: Xiao et al. 2017 (arXiv:1708.07747), in files that are named as MNIST's."""
    refuse_unknown(options, "fashion-mnist", ("shape",))
    return replace(read(rest, options), name="fashion-mnist", labels=FASHION)


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (n, rows*columns) float32 in [0, 1], or (n, *shape) with shape=1x28x28; y (n,) int64 labels.

    Files may be plain or .gz. natural=writers groups the training part by who wrote each digit, from
    mnist_writer_ids.npz in the same folder (ids from QMNIST, Yadav & Bottou 2019). Raises DataError.
    """
    refuse_unknown(options, "mnist", ("natural", "shape"))
    writers = choice(options, "natural", ("none", "writers")) == "writers"
    folder = existing_path(rest)
    x_train, x_test = (_images(folder, part, options.get("shape")) for part in ("train", "t10k"))
    y_train, y_test = (_labels(folder, part) for part in ("train", "t10k"))
    device_train = _writer_ids(folder) if writers else None
    return Dataset(x_train, y_train, x_test, y_test, device_train, name="mnist")


def _images(folder: Path, part: str, shape: str | None) -> np.ndarray:
    path = _find(folder, f"{part}-images-idx3-ubyte")
    pixels = _read_idx(path, axes=3)
    size = math.prod(pixels.shape[1:])
    try:
        wanted = [int(axis) for axis in shape.split("x")] if shape else [size]
    except ValueError:
        wanted = [0]
    if math.prod(wanted) != size or min(wanted) < 1:
        raise UsageError(f"shape={shape} does not hold the {size} pixels of an image: give 1x28x28 or the like")
    scaled: np.ndarray = np.divide(pixels.reshape(-1, *wanted), np.float32(255), dtype=np.float32)
    return scaled


def _labels(folder: Path, part: str) -> np.ndarray:
    return _read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), axes=1)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    text = f"no {name} or {name}.gz in {folder}"
    raise DataError(f"{text}: put the four official MNIST files there", text)


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array of an IDX file; the header is checked against the file's size before memory is allocated."""
    limit = path.stat().st_size * (MAX_INFLATION if path.suffix == ".gz" else 1)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = np.frombuffer(file.read(4 * (1 + axes)), ">u4")
            if len(header) != 1 + axes or header[0] != IDX_UINT8 + axes:
                text = f"{path} is not an IDX file of {axes} axes"
                raise DataError(f"{text}: fetch it again", text)
            shape = [int(axis) for axis in header[1:]]
            size = math.prod(shape)
            data = file.read(size + 1) if size <= limit else b""
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"can't read {path}: {error}: fetch it again", f"can't read {path}") from None
    if len(data) != size or size == 0:
        text = f"{path} does not hold the values its header promises"
        raise DataError(f"{path} does not hold the {shape} values its header promises: fetch it again", text)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _writer_ids(folder: Path) -> np.ndarray:
    with open_npz(existing_path(str(folder / WRITERS))) as arrays:
        if "train_writer" not in arrays:
            text = f"{folder / WRITERS} has no 'train_writer'"
            raise DataError(f"{text}: put the writer of each training digit there", text)
        return arrays["train_writer"]
