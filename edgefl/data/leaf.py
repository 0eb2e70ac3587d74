"""`leaf:DIR`: data sets in the JSON of LEAF (Caldas et al. 2018, arXiv:1812.01097): FEMNIST, Shakespeare, Synthetic.

A file is `{"users": [...], "num_samples": [...], "user_data": {USER: {"x": [...], "y": [...]}}}`. DIR has train/ and
test/ with such files, or only files; FILE is a single one. A user is a device. An example of x is numbers, or a text of
the same length everywhere, whose y is the next character. Lists of words (Reddit, Sent140) and names of images (CelebA)
are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import DataError
from .characters import tokens
from .dataset import Dataset
from .options import existing_path, refuse_unknown


class File(msgspec.Struct):
    """One file. What a user has is decoded when its turn comes: Python's numbers take many times an array's memory."""

    users: list[str]
    user_data: dict[str, msgspec.Raw]


class Examples(msgspec.Struct):
    """What a user has."""

    x: list[Any]
    y: list[Any]


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (n, ...) float32, or (n, length) int64 tokens; y (n,) int64; device_train numbers users as the files do.

    Raises DataError.
    """
    refuse_unknown(options, "leaf")
    path = existing_path(rest)
    home = path / "data" if (path / "data" / "train").is_dir() else path
    parts = [home / name for name in ("train", "test")]
    if not parts[0].is_dir():
        x, y, devices = _read_all(path)
        return Dataset(x, y, device_train=devices, name=path.name)
    (x, y, devices), (x_test, y_test, _) = map(_read_all, parts)
    return Dataset(x, y, x_test, y_test, devices, name=path.name)


def _read_all(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and devices of a file, or of all files of a folder."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} has no .json file: give a folder with train/ and test/", f"{path.name} has no file")
    numbers: dict[str, int] = {}
    xs, ys, devices = [], [], []
    for user, x, y in (found for file in files for found in _users(file)):
        number = numbers.setdefault(user, len(numbers))
        xs.append(x)
        ys.append(y)
        devices.append(np.full(len(x), number))
    if not xs:
        raise DataError(f"{path}: no user has an example: fetch it again", f"{path.name}: no user has an example")
    if len({(x.dtype, x.shape[1:]) for x in xs}) > 1:
        text = "examples have different shapes"
        raise DataError(f"{path}: {text}: all x must be as many numbers, or texts of one length", text)
    return np.concatenate(xs), np.concatenate(ys), np.concatenate(devices)


def _users(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each user that has examples, with x and y."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=File)
        for user in file.users:
            if user not in file.user_data:
                text = f"a user of {path.name} has no user_data"
                raise DataError(f"{path}: {user!r} has no user_data: fetch it again", text)
            examples = msgspec.json.decode(file.user_data[user], type=Examples)
            if examples.x or examples.y:
                yield user, *_arrays(path, user, examples)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"can't read {path.name} as JSON of LEAF"
        raise DataError(f"{path}: {text}: {error}", text) from None


def _arrays(path: Path, user: str, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """A user's x and y."""
    where = f"{path}, user {user!r}"
    if len(examples.x) != len(examples.y):
        text = f"{len(examples.x)} x and {len(examples.y)} y"
        raise DataError(f"{where}: {text}: fetch it again", text)
    if all(isinstance(y, str) for y in examples.y):
        return _texts(where, examples)
    try:
        x, y = np.asarray(examples.x, np.float32), np.asarray(examples.y)
    except (ValueError, TypeError, OverflowError):
        text = "x is not as many numbers in each example"
        raise DataError(f"{where}: {text}: words (Reddit, Sent140) and images (CelebA) are not read", text) from None
    return x, y


def _texts(where: str, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of texts, and of the character that follows each."""
    lengths = {len(x) if isinstance(x, str) else -1 for x in examples.x}
    if len(lengths) > 1 or min(lengths) < 1 or any(len(y) != 1 for y in examples.y):
        text = "x is not texts of one length, each followed by one character y"
        raise DataError(f"{where}: {text}: fetch it again", text)
    return tokens("".join(examples.x)).reshape(len(examples.x), -1), tokens("".join(examples.y))
