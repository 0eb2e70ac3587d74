"""Shares: the examples of each simulated device, by index. Plain training reads them where they lie; for everything
else a device's own are copied while it works, and let go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...core.rows import Rows
from ...data import Dataset


class Examples(Protocol):
    """The examples of all devices: a Dataset, or what a worker elsewhere got of it."""

    @property
    def x_train(self) -> np.ndarray: ...
    @property
    def y_train(self) -> np.ndarray: ...


class Share:
    """The rows of `data`'s training part that one device has."""

    __slots__ = ("_data", "_rows")

    def __init__(self, data: Examples, rows: np.ndarray) -> None:
        self._data, self._rows = data, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> tuple[Examples, np.ndarray]:
        """The data of all devices, and the rows of this one."""
        return self._data, self._rows

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """x (n, ...), y (n, ...)."""
        data, rows = self._data, self._rows
        return data.x_train.take(rows, axis=0), data.y_train.take(rows, axis=0)

    def in_place(self) -> tuple[Rows, Rows]:
        """The same, not copied."""
        rows = np.ascontiguousarray(self._rows, np.int64)
        return Rows(self._data.x_train, rows), Rows(self._data.y_train, rows)


class Shares:
    """`parts` has the rows of each device."""

    def __init__(self, data: Dataset, parts: Sequence[np.ndarray]) -> None:
        self._data, self._parts = data, parts

    def __len__(self) -> int:
        return len(self._parts)

    def of(self, device: int) -> Share:
        """The share of the device of this number."""
        return Share(self._data, self._parts[device])
