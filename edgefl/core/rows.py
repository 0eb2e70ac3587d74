"""Rows: some rows of an array that others read too, without a copy.

A simulated fleet has the examples of all its devices in two arrays. Trainer.fit reads a device's rows where they lie;
everything else that wants an array makes one of them, as it would of a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Rows:
    """The rows `rows` (n,) int64 of `base`."""

    __slots__ = ("base", "rows")

    def __init__(self, base: NDArray[Any], rows: NDArray[np.int64]) -> None:
        self.base, self.rows = base, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> Rows:
        return Rows(self.base, np.ascontiguousarray(self.rows[which]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self.base.take(self.rows, axis=0)
        return found if dtype is None else found.astype(dtype)

    def lies_beside(self, other: Rows) -> bool:
        """Whether these are the same rows, of another array."""
        return self.rows is other.rows or np.array_equal(self.rows, other.rows)
