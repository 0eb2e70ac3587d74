"""Arrays that stand for a table: the options of rows, for npz: labels, blanks, bad rows and windows.

A row is an example. NaN is a blank; infinity, or a number beyond float32, makes the row a bad one.
"""

from __future__ import annotations

from array import array
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ..errors import DataError, UsageError
from .blocks import join_named
from .cells import FLOAT32_MAX, Missing
from .columns import UNLABELLED, is_unlabelled
from .dataset import Dataset, from_arrays
from .labels import Labels
from .options import choice
from .tally import Count
from .windows import OPTIONS as WINDOW_OPTIONS
from .windows import Cut, Rows

OPTIONS = ("labels", "kind", "missing", "bad", UNLABELLED, *WINDOW_OPTIONS)
UNKNOWN, BLANK = -1, -2  # in place of a class's number
Changed: TypeAlias = MutableMapping[str, Any]
CHUNK = 2**14  # values that are looked at together, so that nothing as large as the data is made


def from_arrays_with(
    options: Mapping[str, str], arrays: Mapping[str, Any], name: str, *, starts: Sequence[int] | np.ndarray = (),
    late: int = 0, odd: Sequence[DataError] = (),
) -> Dataset:  # fmt: skip
    """A Dataset from the arrays that `from_arrays` takes, by the options of rows. Raises DataError, UsageError.

    `starts`: where the examples of another file begin. Of other files, `late` are not whole yet, and `odd` can't be
    used.
    """
    changed = _changed(arrays)
    blocks = join_named(changed)
    names = {"inputs": blocks.get("x", ()), "targets": () if is_unlabelled(options) else blocks.get("y", ())}
    changed.update({key: found for key, found in names.items() if found})
    if is_unlabelled(options):
        options = {name: value for name, value in options.items() if name != "labels"}
        for part in ("", "_train"):
            if (x := changed.get(f"x{part}")) is not None:
                changed[f"y{part}"] = np.zeros(np.shape(x)[:1], np.int64)
    reader = _Arrays(options, name)
    reader.count.late = late
    for error in odd:
        reader.count.rows += 1
        reader.count.refuse(error)
    return reader.read(changed, np.asarray(starts, np.int64))


def _changed(arrays: Mapping[str, Any]) -> Changed:
    """The arrays, of which some are to be replaced. Others in a file are not read."""
    return ChainMap({}, arrays)  # type: ignore[arg-type]  # a ChainMap writes to the first one alone


class _Arrays:
    def __init__(self, options: Mapping[str, str], name: str) -> None:
        self._name = name
        self._missing, self._cut, self._labels = Missing.parse(options), Cut.parse(options), Labels.parse(options)
        self._classes = choice(options, "kind", ("values", "classes")) == "classes"
        self.count = Count(options, "example")
        self._gaps = False

    def read(self, arrays: Changed, starts: np.ndarray) -> Dataset:
        breaks = starts
        for part in ("", "_train", "_test"):
            x, y = arrays.get(f"x{part}"), arrays.get(f"y{part}")
            if x is None or y is None or len(np.shape(x)) == 0 or np.shape(x)[:1] != np.shape(y)[:1]:
                continue  # Dataset says what is wrong
            x, y = np.asarray(x), self._targets(np.asarray(y))
            kept = self._kept(part or "_train", x, y)
            if not kept.all():
                x, y = x[kept], y[kept]
                if part != "_test":
                    before = np.cumsum(kept) - kept  # how many are kept before each example
                    breaks = np.unique(np.concatenate([before[starts], before[~kept]]))
                    self._keep_devices(arrays, kept)
            arrays[f"x{part}"], arrays[f"y{part}"] = self._filled(x), self._whole(y)
        self._check_left(arrays)
        dataset = self._dataset(arrays)
        return dataset if self._cut is None else self._windows(dataset, breaks)

    def _kept(self, part: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) bool: the examples that can be used. Counts the others."""
        kept = np.ones(len(x), bool)
        self.count.rows += len(x)
        step = max(1, CHUNK * len(x) // max(1, x.size + y.size))
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            bad, blank = _flaws(x[rows])
            bad_y, blank_y = _flaws(y[rows]) if self._labels is None else (y[rows] == UNKNOWN, y[rows] == BLANK)
            bad, lost = bad | bad_y, blank_y | (blank & (self._missing.how == "skip"))
            if not self._missing.how:
                bad, lost = bad | blank | blank_y, np.zeros(len(bad), bool)
            elif self._missing.how != "skip":
                self._gaps |= bool((blank & ~bad & ~lost).any())
            kept[rows] = ~(bad | lost)
            self.count.blank += int((lost & ~bad).sum())
            for row in (start + np.flatnonzero(bad)).tolist():
                self.count.refuse(self._error(part, row, y))
        return kept

    def _error(self, part: str, row: int, y: np.ndarray) -> DataError:
        text = f"x{part}: example {row} holds NaN or infinity, or exceeds float32"
        if self._labels is not None and y[row] < 0:
            text = f"y{part}: example {row} is not {self._labels.wanted()}"
        return DataError(f"{self._name}: {text}: repair or drop it", text)

    def _keep_devices(self, arrays: Changed, kept: np.ndarray) -> None:
        devices = arrays.get("device_train")
        if devices is not None and np.shape(devices) == kept.shape:
            arrays["device_train"] = devices[kept]

    def _filled(self, x: np.ndarray) -> np.ndarray:
        if self._missing.how != "value" or not self._gaps:
            return x
        x = x.astype(np.float32)
        x[np.isnan(x)] = self._missing.value
        return x

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """y as it is, or the numbers of its classes: UNKNOWN for a cell that names no class, BLANK for a blank one."""
        if self._labels is None:
            return y
        if y.ndim != 1:
            text = f"labels= wants one label an example, and y has shape {y.shape}"
            raise DataError(f"{self._name}: {text}", text)
        return np.array([self._code(self._labels, cell) for cell in y.tolist()], np.int64)

    def _code(self, labels: Labels, cell: Any) -> int:
        cell = cell.decode(errors="replace") if isinstance(cell, bytes) else cell
        return BLANK if labels.is_blank(cell) else labels.code(cell)

    def _whole(self, y: np.ndarray) -> np.ndarray:
        """With kind=classes, floats that are whole numbers are labels."""
        whole = self._classes and y.dtype.kind == "f" and len(y) and bool((np.floor(y) == y).all())
        return y.astype(np.int64) if whole else y

    def _check_left(self, arrays: Changed) -> None:
        if self._labels is not None:
            self._labels.check()
        self._tally = self.count.close()
        if self._tally.blank and not all(len(arrays[key]) for key in ("x", "x_train") if key in arrays):
            text = "all examples have blanks"
            raise DataError(f"{self._name}: {text}: use missing=mean", text)

    def _dataset(self, arrays: Changed) -> Dataset:
        gaps = self._gaps and self._missing.how == "mean"
        made = from_arrays(arrays, self._name, tally=self._tally, gaps=gaps)
        if self._labels is None:
            return made
        parts = [y for y in (made.y_train, made.y_test) if y is not None]
        numbers = [self._labels.finish(array("q", y.tobytes())) for y in parts]
        for name, y in zip(("y_train", "y_test"), numbers, strict=False):
            object.__setattr__(made, name, y)
        object.__setattr__(made, "labels", self._labels.names)
        return made

    def _windows(self, dataset: Dataset, breaks: np.ndarray) -> Dataset:
        assert self._cut is not None
        if dataset.x_test is not None or dataset.x_train.ndim != 2:
            raise UsageError(f"{self._name}: window= wants x of shape (rows, features), and no test part of its own")
        if dataset.inputs:
            names = ", ".join(f"x.{block.name}" for block in dataset.inputs)
            raise UsageError(f"{self._name}: window= cuts one array x, and there are {names}: save windows of each")
        rows = Rows(dataset.x_train, dataset.y_train, dataset.device_train, None, breaks)
        rows = self._cut.apply(self._name, rows)
        y = dataset.y_train if rows.y is None else rows.y
        made = Dataset(rows.x, y, device_train=rows.devices, name=self._name, labels=dataset.labels, gaps=dataset.gaps)
        return replace(made, tally=dataset.tally, series=self._cut.series(), targets=dataset.targets)


def _flaws(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool twice: whether an example has infinity or more than float32 holds; whether it has a NaN."""
    flat = values.reshape(len(values), -1)
    if values.dtype.kind != "f":
        return np.zeros(len(values), bool), np.zeros(len(values), bool)
    nan = np.isnan(flat)
    with np.errstate(invalid="ignore"):
        return ((np.abs(flat) > FLOAT32_MAX) & ~nan).any(axis=1), nan.any(axis=1)
