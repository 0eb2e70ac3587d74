"""Tables of numbers (CSV lines, SQL rows) to a Dataset, a row at a time and 4 bytes a number.

Nothing is guessed: without features=, every column except the target and the device is a feature. A cell that is not a
finite number is an error that names its place.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, UsageError, nearest
from .dataset import Dataset
from .options import choice, names

OPTIONS = ("target", "features", "device", "kind")
FLOAT32_MAX = float(np.finfo(np.float32).max)
LABEL_MAX = 2**31


class _Columns(NamedTuple):
    """The positions of features, target and device in a row; and the names that the SPEC has for some of them."""

    features: list[int]
    target: int
    device: int | None
    told: frozenset[str]


class _Cells:
    """The numbers in a table's cells, or a DataError that says where the bad one is."""

    def __init__(self, source: str, unit: str, header: Sequence[str], columns: _Columns) -> None:
        self.source, self.unit, self.header, self.columns = source, unit, header, columns

    def number(self, row: int, column: int, cell: Any) -> float:
        try:
            value = float(cell)
        except (TypeError, ValueError):  # None, text
            value = math.nan
        # NaN fails the comparison; Python alone would read 12_5 as 125.
        if not abs(value) <= FLOAT32_MAX or (isinstance(cell, str) and "_" in cell):
            raise self.error(row, column, cell, "a finite number")
        return value

    def label(self, row: int, column: int, cell: Any) -> int:
        value = self.number(row, column, cell)
        if not (value.is_integer() and 0 <= value < LABEL_MAX):
            raise self.error(row, column, cell, "a class label (0, 1, 2, ...)")
        return int(value)

    def device(self, row: int, column: int, cell: Any) -> str:
        if cell is None or cell == "":
            raise self.error(row, column, cell, "a device id")
        return str(cell)

    def error(self, row: int, column: int, cell: Any, wanted: str) -> DataError:
        shown = "nothing" if cell is None or cell == "" else repr(cell)[:60]
        remedy = f"repair or delete the {self.unit}"
        if column in self.columns.features:
            remedy += ", or name only the columns to learn from with features=A,B"
        place, name = f"{self.source}, {self.unit} {row}", self.header[column]
        # A table without a header has data where the names should be: only a name that the SPEC has too may be told.
        told = repr(name) if name in self.columns.told else f"number {column + 1}"
        text = f"{place}, column {name!r}: {shown} is not {wanted}: {remedy}"
        return DataError(text, f"{place}, column {told}: not {wanted}")


def read_table(
    source: str,
    unit: str,
    header: Sequence[str],
    rows: Iterable[tuple[int, Sequence[Any]]],
    options: Mapping[str, str],
) -> Dataset:
    """Read `rows`, (number in the source, cells), under `header`; `unit` is what the source calls a row.

    x is (n, features) float32; y (n,) is float32, or int64 with kind=classes. Device ids, any text, become
    0, 1, 2, ... in their order: by number where all are numbers, else by text. Raises DataError, UsageError.
    """
    classes = choice(options, "kind", ("values", "classes")) == "classes"
    columns = _choose_columns(source, header, options)
    cells = _Cells(source, unit, header, columns)
    target = cells.label if classes else cells.number
    x, devices = array("f"), array("q")
    y: array[Any] = array("q" if classes else "f")
    ids: dict[str, int] = {}
    for row, record in rows:
        if len(record) != len(header):
            raise DataError(
                f"{source}, {unit} {row}: {len(record)} cells under a header of {len(header)}: "
                f"repair or delete the {unit}; a delimiter inside a cell needs quotes",
                f"{source}, {unit} {row}: {len(record)} cells under a header of {len(header)}",
            )
        x.extend([cells.number(row, i, record[i]) for i in columns.features])
        y.append(target(row, columns.target, record[columns.target]))
        if columns.device is not None:
            device = cells.device(row, columns.device, record[columns.device])
            devices.append(ids.setdefault(device, len(ids)))
    if not y:
        text = f"{source} has a header and no {unit}s of data"
        raise DataError(f"{text}: add some", text)
    return Dataset(
        np.frombuffer(x, np.float32).reshape(len(y), -1),
        np.frombuffer(y, np.int64 if classes else np.float32),
        device_train=_in_order(ids)[np.frombuffer(devices, np.int64)] if ids else None,
        name=source,
    )


def _in_order(ids: Mapping[str, int]) -> np.ndarray:
    """(devices,) int64: the rank of each id, indexed by the order in which ids first came."""
    numeric = all(name.isdecimal() for name in ids)
    ranked = sorted(ids, key=lambda name: (int(name), name) if numeric else (0, name))
    ranks = np.empty(len(ids), np.int64)
    for rank, name in enumerate(ranked):
        ranks[ids[name]] = rank
    return ranks


def _choose_columns(source: str, header: Sequence[str], options: Mapping[str, str]) -> _Columns:
    """Positions of the columns that the options name; DataError for one that is missing."""
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        text = f"{source} has two columns named {twice[0]!r}: give each its own name"
        raise DataError(text, f"{source} has two columns of one name")
    if "target" not in options:
        raise UsageError(f"{source}: add target=COL, the column to learn; columns: {', '.join(header)}")
    target = _position(source, header, options["target"])
    device = _position(source, header, options["device"]) if "device" in options else None
    if "features" not in options:
        features = [i for i in range(len(header)) if i not in (target, device)]
    else:
        features = [_position(source, header, name) for name in names(options["features"])]
    if not features:
        text = f"{source} has no column left to learn from"
        raise DataError(f"{text}: add one", text)
    if target in features or len(set(features)) < len(features):
        raise UsageError(f"features={options['features']} has a column twice, or the target: name each once")
    told = {options["target"], options.get("device", ""), *names(options.get("features", ""))}
    return _Columns(features, target, device, frozenset(told))


def _position(source: str, header: Sequence[str], name: str) -> int:
    if name not in header:
        text = f"{source} has no column {name!r}"
        raise DataError(f"{text}: {nearest(name, header)}", text)
    return header.index(name)
