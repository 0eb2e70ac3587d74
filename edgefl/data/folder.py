"""`folder:DIR?...`: all CSV or NPZ files of a folder that grows, as one table. The options are those of csv or npz.

The names of the files are to sort by time: the newest are read, up to `mb=` megabytes of them. A file that is not whole
yet is left for later: a CSV that was just written and has no line end, an NPZ that can't be opened. So are names that
begin with a dot or end in anything else than .csv or .npz. A file with other columns is a bad row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import DataError, UsageError
from . import arrays, csv_file, npz_file
from .columns import is_unlabelled
from .dataset import Dataset
from .options import existing_path, numbers, refuse_unknown
from .table import OPTIONS, Table

KINDS = (".csv", ".npz")
MB = 64.0
SETTLE_S = 5.0  # after its last change a CSV without a line end is whole


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """The examples of the newest files, in the order of their names. Raises DataError, UsageError."""
    refuse_unknown(options, "folder", (*OPTIONS, *csv_file.OWN_OPTIONS, *arrays.OPTIONS, "mb"))
    folder = existing_path(rest)
    files = chosen(folder, options)
    kinds = {path.suffix for path in files}
    if len(kinds) > 1:
        text = f"{folder} has .csv and .npz files"
        raise DataError(f"{text}: keep one kind in it", text)
    if not files:
        text = f"{folder} has no .csv or .npz file yet"
        raise DataError(f"{text}: it is looked at again", text)
    return (_read_csv if kinds == {".csv"} else _read_npz)(files, options)


def chosen(folder: Path, options: Mapping[str, str]) -> list[Path]:
    """The newest files by name, up to mb= megabytes, the oldest first; DataError, UsageError."""
    left = _most_bytes(options)
    try:
        found = sorted((e.name for e in os.scandir(folder) if _is_data(e.name) and e.is_file()), reverse=True)
    except OSError as error:
        text = f"can't read {folder}: {error.strerror}"
        raise DataError(f"{text}: give a folder, which this user may read", text) from None
    out: list[Path] = []
    for name in found:
        with suppress(OSError):  # it may go at any moment
            left -= (folder / name).stat().st_size
            if left < 0 and out:
                break
            out.append(folder / name)
    return out[::-1]


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.endswith(KINDS)


def _most_bytes(options: Mapping[str, str]) -> int:
    given = numbers(options, "mb") if "mb" in options else [MB]
    if len(given) != 1 or not 0 < given[0] <= 1e6:
        raise UsageError(f"data option mb={options['mb']}: give megabytes, more than 0")
    return int(given[0] * 1e6)


def _read_csv(files: Sequence[Path], options: Mapping[str, str]) -> Dataset:
    table = Table(options, "line")
    for path in files:
        if is_torn(path):
            table.count.late += 1
            continue
        try:
            csv_file.feed(table, path, options)
        except DataError as error:  # it has other columns, or none
            table.count.rows += 1
            table.count.refuse(error)
    return table.finish()


def is_torn(path: Path) -> bool:
    """Whether the writer of this CSV seems to be in the middle of a line."""
    try:
        status = os.stat(path)
        if status.st_size == 0 or not 0 <= time.time() - status.st_mtime < SETTLE_S:
            return status.st_size == 0  # a look at a folder opens its newest files alone
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) not in b"\r\n\0"  # the last byte of UTF-16 may be a zero
    except OSError:
        return True


def _read_npz(files: Sequence[Path], options: Mapping[str, str]) -> Dataset:
    refuse_unknown(options, "npz", (*arrays.OPTIONS, "mb"))
    parts: list[dict[str, np.ndarray]] = []
    late, odd = 0, []
    for path in files:
        try:
            with npz_file.open_npz(path) as found:
                part = _arrays_of(found, path.name, labelled=not is_unlabelled(options))
        except DataError:
            late += 1
            continue
        if parts and [(k, v.shape[1:]) for k, v in part.items()] != [(k, v.shape[1:]) for k, v in parts[0].items()]:
            text = f"{path.name} has other arrays, or other shapes, than {files[0].name}"
            odd.append(DataError(f"{text}: give all files the same ones", text))
            continue
        parts.append(part)
    if not parts:
        text = f"no .npz file of {len(files)} can be read"
        raise DataError(f"{text}: write them with numpy.savez, under another name until they are whole", text)
    starts = np.cumsum([0, *(len(next(iter(part.values()))) for part in parts)])[:-1]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return arrays.from_arrays_with(options, joined, files[0].parent.name, starts=starts, late=late, odd=odd)


def _arrays_of(found: Mapping[str, np.ndarray], name: str, *, labelled: bool) -> dict[str, np.ndarray]:
    """x, y if it is `labelled`, and perhaps device_train of one file."""
    out: dict[str, np.ndarray] = {}
    for axis in ("x", "y") if labelled else ("x",):
        key = axis if axis in found else f"{axis}_train"
        several = (
            {} if key in found else {name: found[name] for name in found if name.startswith((f"{axis}.", f"{key}."))}
        )
        if key not in found and not several:
            text = f"{name} has no {key!r}"
            raise DataError(f"{text}: name the arrays x and y", text)
        own = {f"{axis}.{part.partition('.')[2]}": array for part, array in sorted(several.items())}  # blocks.py
        out |= own or {axis: found[key]}
    return {**out, "device_train": found["device_train"]} if "device_train" in found else out
