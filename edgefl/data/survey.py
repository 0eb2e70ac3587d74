"""Survey: what a table holds, column by column. For an operator on a machine of his own.

It shows values: nothing of it is called by an agent. Rows are read one at a time; of each column a few sums and at most
MOST_NAMES different cells are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from . import csv_file, folder, ring, sniff, sqlite_query
from .cells import BAD_BYTES, is_blank, number_reader, plain_number, seconds
from .labels import tidy
from .options import existing_path
from .table import Malformed

MOST_NAMES = 64
NAME_LENGTH = 60
MOSTLY = 0.75  # of the cells that are not blank
TABLES = ("csv", "sqlite", "folder", "ring")


@dataclass
class Column:
    """One column. `kind`: numbers, whole numbers, text, dates, or blank; of all kinds but text, `least` to `std` are of
    the numbers in it. `names`: how often each different cell occurs; None: there are more than MOST_NAMES."""

    name: str
    kind: str = "blank"
    rows: int = 0
    blanks: int = 0
    odd: int = 0  # cells that are not of the kind
    least: float | None = None
    most: float | None = None
    mean: float | None = None
    std: float | None = None
    names: dict[str, int] | None = field(default_factory=dict)


@dataclass
class Survey:
    """`unit`: what the source calls a row; `rows` were read, of which `malformed` have not the header's width.
    `options`: those that were given, and those without which it can't be read."""

    source: str
    unit: str
    rows: int
    malformed: int
    columns: list[Column]
    options: dict[str, str]


def survey(kind: str, rest: str, options: Mapping[str, str]) -> Survey:
    """Read a whole table. Raises DataError, UsageError."""
    options = dict(options)
    counters: list[_Counter] = []
    header: list[str] = []
    rows = malformed = 0
    unit = "line" if kind in ("csv", "folder") else "row"
    for path in _paths(kind, rest, options):
        with _opened(kind, path, options) as (found, records):
            if not header:
                header = list(found)
                counters = [_Counter(name, options) for name in header]
            elif list(found) != header:
                malformed += 1
                continue
            for _, record in records:
                rows += 1
                if isinstance(record, Malformed) or len(record) != len(header):
                    malformed += 1
                    continue
                for counter, cell in zip(counters, record, strict=True):
                    counter.add(cell)
    return Survey(Path(rest).name, unit, rows, malformed, [counter.close() for counter in counters], options)


def _paths(kind: str, rest: str, options: dict[str, str]) -> list[Path]:
    """The files to read, and in `options` how the first one is to be read."""
    path = existing_path(rest)
    paths = [path]
    if kind == "folder":
        paths = [file for file in folder.chosen(path, options) if file.suffix == ".csv"]
        if not paths:
            raise DataError(f"{path} has no .csv file: for .npz files, survey one of them", "no .csv file")
    if kind in ("csv", "folder"):
        options.update(sniff.dialect(paths[0], options))
    return paths


@contextmanager
def _opened(
    kind: str, path: Path, options: Mapping[str, str]
) -> Iterator[tuple[Sequence[str], Iterable[tuple[int, Sequence[Any]]]]]:
    if kind in ("csv", "folder"):
        with csv_file.opened(path, options) as (header, rows, _):
            yield header, rows
        return
    query = dict(options) if kind == "sqlite" else {"query": ring.query(options)}
    with sqlite_query.opened(path, query) as (header, rows):
        yield (header, rows) if kind == "sqlite" else (header[1:], ((row, cells[1:]) for row, cells in rows))


def _is_date(cell: Any) -> bool:
    """A number with another decimal sign than the table's is text, not seconds."""
    return isinstance(cell, str) and math.isnan(plain_number(cell)) and math.isfinite(seconds(cell))


class _Counter:
    """What is kept of one column while it is read."""

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        self._column = Column(name)
        self._number = number_reader(options)
        self._numbers = self._wholes = self._dates = self._texts = 0
        self._shift = self._sum = self._squares = 0.0

    def add(self, cell: Any) -> None:
        column = self._column
        column.rows += 1
        if is_blank(cell):
            column.blanks += 1
            return
        value = self._number(cell)
        if math.isfinite(value):
            self._add_number(value)
        elif _is_date(cell):
            self._dates += 1
        else:
            self._texts += 1
        self._add_name(cell)

    def _add_number(self, value: float) -> None:
        column = self._column
        if not self._numbers:
            self._shift = column.least = column.most = value
        self._numbers += 1
        self._wholes += value.is_integer()
        column.least, column.most = min(column.least or 0.0, value), max(column.most or 0.0, value)
        self._sum += value - self._shift
        self._squares += (value - self._shift) ** 2

    def _add_name(self, cell: Any) -> None:
        names = self._column.names
        if names is None:
            return
        name = BAD_BYTES.sub("\ufffd", tidy(cell))[:NAME_LENGTH]
        names[name] = names.get(name, 0) + 1
        if len(names) > MOST_NAMES:
            self._column.names = None

    def close(self) -> Column:
        column, known = self._column, self._numbers + self._dates + self._texts
        kinds = {"numbers": self._numbers, "dates": self._dates, "text": self._texts}
        if known:
            column.kind = max(kinds, key=lambda kind: kinds[kind])
            if kinds[column.kind] < MOSTLY * known:
                column.kind = "text"
            column.odd = 0 if column.kind == "text" else known - kinds[column.kind]
            if column.kind == "numbers" and self._wholes == self._numbers:
                column.kind = "whole numbers"
        if self._numbers:
            mean = self._sum / self._numbers
            column.mean = self._shift + mean
            column.std = math.sqrt(max(0.0, self._squares / self._numbers - mean * mean))
        return column
