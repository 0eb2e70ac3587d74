"""Tables (CSV lines, SQL rows) to a Dataset, a row at a time and 4 bytes a number.

Nothing is guessed: without features=, every column except target, device and time is a feature. A row that can't be
understood is left out and counted (tally.py). So is one with a blank, unless missing= says what to put there.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from . import columns as choosing
from .cells import BAD_BYTES, COMMA_NUMBER, Missing, is_blank, number_reader, seconds
from .columns import Columns
from .dataset import Dataset
from .labels import Labels
from .options import choice
from .tally import Count
from .targets import LABELS_OF, Target, blocks_of, labels_of, targets_of
from .windows import OPTIONS as WINDOW_OPTIONS
from .windows import Cut, Rows

OPTIONS = (
    "target", "features", "device", "time", "kind", "labels", LABELS_OF, "missing", "bad", "decimal", "thousands",
    choosing.UNLABELLED, *WINDOW_OPTIONS,
)  # fmt: skip
LABEL_MAX = 2**31


class Blank(Exception):
    """A row has a blank, and missing=skip."""


class Malformed(str):
    """Stands for the cells of a row that could not be split; what is wrong with it."""


class Table:
    """A Dataset in the making, from one source or several of the same columns. Raises DataError, UsageError.

    x is (n, features) float32; y (n,) is float32, or int64 with kind=classes or labels=. Several targets are columns of
    y (n, targets), float32, classes by their numbers. Device ids, any text, become 0, 1, 2, ... in their order: by
    number where all are numbers, else by text.
    """

    def __init__(self, options: Mapping[str, str], unit: str) -> None:
        self._options, self._unit = options, unit
        self._missing, self._cut = Missing.parse(options), Cut.parse(options)
        self._targets = targets_of(options)
        self._blocks, self._labels = blocks_of(self._targets), labels_of(options, self._targets)
        classes = choice(options, "kind", ("values", "classes")) == "classes"
        if (classes or self._labels[0]) and options.get("target") == choosing.ITSELF:
            raise UsageError("target=* learns the features themselves: leave out kind=classes and labels=")
        self._number = number_reader(options)
        plain = self._class if classes else self._value
        self._read = [partial(self._label, each) if each else plain for each in self._labels]
        self._x, self._devices, self._times, self._breaks = array("f"), array("q"), array("d"), array("q")
        self._y: array[Any] = array("q" if not self._blocks and (classes or self._labels[0]) else "f")
        self._kept = 0
        self._ids: dict[str, int] = {}
        self.count = Count(options, unit)
        self._gaps = False
        self._names: tuple[str, ...] = ()  # of the features
        self._source, self._columns = "", Columns([], [], None, None, frozenset())
        self._header: Sequence[str] = ()
        self._width = 0

    def begin(self, source: str, header: Sequence[str], hint: str = "") -> None:
        """The rows that follow are those of `source`, under this header. `hint`: see columns.py."""
        options = self._options
        if self._names and "features" not in options:
            options = {**options, "features": ",".join(name.replace(",", "%2C") for name in self._names)}
        self._source, self._header, self._width = source, header, len(header)
        self._columns = choosing.choose(source, header, options, hint)
        if self._names and "features" not in self._options:  # the names are those of another table's first line
            self._columns = self._columns._replace(told=choosing.told(self._options))
        self._names = tuple(header[i] for i in self._columns.features)
        self._break()

    def add_all(self, rows: Iterable[tuple[int, Sequence[Any]]]) -> None:
        """All rows, (number in the source, cells)."""
        for row, record in rows:
            self.count.rows += 1
            try:
                self._add(row, record)
            except Blank:
                self.count.blank += 1
                self._break()
            except DataError as error:
                self.count.refuse(error)
                self._break()

    def finish(self) -> Dataset:
        """The Dataset; DataError if too many rows can't be used, or none is left."""
        for labels in filter(None, self._labels):
            labels.check()
        tally = self.count.close()
        if not self._kept:
            text = f"{self._source} has a header and no {self._unit}s of data"
            if tally.rows:
                text = f"all {tally.rows} {self._unit}s of {self._source} have blanks"
            raise DataError(f"{text}: {'use missing=mean' if tally.rows else 'add some'}", text)
        y = self._finished() if self._columns.targets else None
        rows = Rows(
            np.frombuffer(self._x, np.float32).reshape(self._kept, -1), y,
            ranks(self._ids)[np.frombuffer(self._devices, np.int64)] if self._ids else None,
            np.frombuffer(self._times, np.float64) if self._times else None, np.frombuffer(self._breaks, np.int64),
        )  # fmt: skip
        if self._cut is not None:
            rows = self._cut.apply(self._source, rows)
        return Dataset(
            rows.x, rows.x if rows.y is None else rows.y, device_train=rows.devices, name=self._source,
            labels=self._labels[0].names if self._labels[0] and not self._blocks else (), columns=self._names,
            tally=tally, gaps=self._gaps, series=self._cut.series() if self._cut else None,
            targets=self._blocks if self._columns.targets else (),
            target_labels={at.output: names.names for at, names in self._of_several() if names},
        )  # fmt: skip

    def _finished(self) -> np.ndarray:
        """y, (n,) of one target, (n, targets) of several."""
        if self._blocks:
            return np.asarray(self._y).reshape(self._kept, -1)
        labels = self._labels[0]
        return labels.finish(self._y) if labels else np.asarray(self._y)

    def _of_several(self) -> Iterable[tuple[Target, Labels | None]]:
        return zip(self._targets, self._labels, strict=True) if self._blocks else ()

    def _break(self) -> None:
        """The next row does not follow on the last one."""
        if self._cut is not None and (not self._breaks or self._breaks[-1] != self._kept):
            self._breaks.append(self._kept)

    def _add(self, row: int, record: Sequence[Any]) -> None:
        if len(record) != self._width or record.__class__ is Malformed:
            raise self._misshapen(row, record)
        columns, number = self._columns, self._number
        x = [number(record[i]) for i in columns.features]
        if not math.isfinite(sum(x)):  # no sum of float32 numbers leaves float64
            self._mend(row, record, x)
        device = None if columns.device is None else self._device(row, columns.device, record[columns.device])
        time = None if columns.time is None else self._time(row, columns.time, record[columns.time])
        if columns.targets:  # last: with labels=* a new label is kept
            pairs = zip(self._read, columns.targets, strict=True)
            self._y.extend([read(row, column, record[column]) for read, column in pairs])
        if device is not None:
            self._devices.append(self._ids.setdefault(device, len(self._ids)))
        if time is not None and self._cut is not None:
            self._times.append(time)
        self._x.extend(x)
        self._kept += 1

    def _misshapen(self, row: int, record: Sequence[Any]) -> DataError:
        place = f"{self._source}, {self._unit} {row}"
        if isinstance(record, Malformed):
            return DataError(
                f"{place}: {record}: repair the {self._unit}", f"{place}: not a {self._unit} of a CSV file"
            )
        text = f"{place}: {len(record)} cells under a header of {self._width}"
        return DataError(f"{text}: repair or delete the {self._unit}; a delimiter inside a cell needs quotes", text)

    def _mend(self, row: int, record: Sequence[Any], x: list[float]) -> None:
        """Put into `x` what missing= says, for each blank; Blank or DataError where that can't be done."""
        blank = 0
        for at, column in enumerate(self._columns.features):
            if math.isfinite(x[at]):
                continue
            if not (self._missing.how and is_blank(record[column])):
                raise self._error(row, column, record[column], "a finite number")
            x[at], blank = self._missing.value, blank + 1
        if self._missing.how == "skip":
            raise Blank
        self._gaps |= self._missing.how == "mean"
        self.count.filled += blank

    def _value(self, row: int, column: int, cell: Any) -> float:
        value = self._number(cell)
        if not math.isfinite(value):
            raise self._unreadable(row, column, cell, "a finite number")
        return value

    def _class(self, row: int, column: int, cell: Any) -> int:
        value = self._number(cell)
        if not (value.is_integer() and 0 <= value < LABEL_MAX):  # NaN is no integer
            raise self._unreadable(row, column, cell, "a class label (0, 1, 2, ...)")
        return int(value)

    def _label(self, labels: Labels, row: int, column: int, cell: Any) -> int:
        if labels.is_blank(cell):
            raise self._unreadable(row, column, cell, labels.wanted())
        broken = isinstance(cell, str) and BAD_BYTES.search(cell)
        if broken or (code := labels.code(cell)) < 0:
            raise self._error(row, column, cell, labels.wanted())
        return code

    def _time(self, row: int, column: int, cell: Any) -> float:
        value = seconds(cell)
        if not math.isfinite(value):
            raise self._unreadable(row, column, cell, "a time: seconds, or a date as in 2026-01-31 12:00:00")
        return value

    def _device(self, row: int, column: int, cell: Any) -> str:
        if cell is None or cell == "" or (isinstance(cell, str) and BAD_BYTES.search(cell)):
            raise self._error(row, column, cell, "a device id")
        return str(cell)

    def _unreadable(self, row: int, column: int, cell: Any, wanted: str) -> Exception:
        """Blank, if the cell is blank and such rows are skipped: nothing can fill a target."""
        return Blank() if self._missing.how and is_blank(cell) else self._error(row, column, cell, wanted)

    def _error(self, row: int, column: int, cell: Any, wanted: str) -> DataError:
        shown = "nothing" if cell is None or cell == "" else repr(cell)[:60]
        name, place = self._header[column], f"{self._source}, {self._unit} {row}"
        # A table without a header has data where the names should be: only a name that the SPEC has too may be told.
        told = repr(name) if name in self._columns.told else f"number {column + 1}"
        remedy, hint = self._remedy(column, cell)
        if hint.startswith("is not "):
            return DataError(f"{place}, column {name!r}: {hint}", f"{self._source} {hint}")
        text = f"{place}, column {name!r}: {shown} is not {wanted}: {remedy}"
        return DataError(text, f"{place}, column {told}: not {wanted}" + (f"; {hint}" if hint else ""))

    def _remedy(self, column: int, cell: Any) -> tuple[str, str]:
        """What to do about a cell; and of that what may leave the device."""
        options, hint = self._options, ""
        text = cell if isinstance(cell, str) else ""
        if BAD_BYTES.search(text) and self._unit == "line":
            hint = f"is not {options.get('encoding', 'UTF-8')} text: add encoding=latin-1, utf-16 or what it is"
        elif COMMA_NUMBER.fullmatch(text) and "decimal" not in options and "thousands" not in options:
            hint = "for decimal commas, add decimal=,"
        elif self._takes_numbers(column) and text[:1].isalpha() and not is_blank(cell):
            target = self._targets[self._columns.targets.index(column)]
            hint = f"for classes that are text, add {LABELS_OF + target.output if self._blocks else 'labels'}=A,B"
        elif is_blank(cell) and not self._missing.how and column in self._columns.features:
            hint = "for blanks, add missing=mean or missing=skip"
        remedy = f"repair or delete the {self._unit}" + (f"; {hint}" if hint else "")
        if column in self._columns.features:
            remedy += ", or name only the columns to learn from with features=A,B"
        return remedy, hint

    def _takes_numbers(self, column: int) -> bool:
        """Whether it is a target without labels."""
        targets = self._columns.targets
        return column in targets and not self._labels[targets.index(column)]


def read_table(
    source: str,
    unit: str,
    header: Sequence[str],
    rows: Iterable[tuple[int, Sequence[Any]]],
    options: Mapping[str, str],
) -> Dataset:
    """Read `rows`, (number in the source, cells), under `header`; `unit` is what the source calls a row."""
    table = Table(options, unit)
    table.begin(source, header)
    table.add_all(rows)
    return table.finish()


def ranks(ids: Mapping[str, int]) -> np.ndarray:
    """(devices,) int64: the rank of each id, indexed by the order in which ids first came."""
    numeric = all(name.isdecimal() and len(name) <= 100 for name in ids)
    ranked = sorted(ids, key=lambda name: (int(name), name) if numeric else (0, name))
    out = np.empty(len(ids), np.int64)
    for rank, name in enumerate(ranked):
        out[ids[name]] = rank
    return out
