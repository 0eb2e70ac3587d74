"""Spill: every update of a round in one unlinked file, read back in chunks of coordinates.

The file has no name, so it is gone when the process ends, even after kill -9. Its size is bounded, and the
disk space that a round is known to need is reserved before the first round.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import CodecError, StoreError, UsageError

CHUNK_BYTES = 2**24
Key = tuple[str, int, int]  # the device, the staleness, the payload's CRC-32C


class Spill:
    """Room for `max_bytes` // 4P updates of P float32, in `folder` (None: the system's for temporary files).

    UsageError if `reports` updates have no room in `max_bytes` or on the disk.
    """

    def __init__(self, num_params: int, max_bytes: int, *, reports: int = 1, folder: Path | None = None) -> None:
        self._row_bytes = 4 * num_params
        self._rows = max_bytes // self._row_bytes
        self._keys: list[Key] = []
        self._weights: list[int] = []
        needed = reports * self._row_bytes
        if self._rows < reports:
            raise UsageError(
                f"{reports} updates of {num_params} params take {needed} bytes on disk, spill_mb allows {max_bytes}: "
                "raise spill_mb, ask fewer devices, or use a strategy that needs no spill"
            )
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            os.posix_fallocate(self._file.fileno(), 0, needed)
        except OSError as error:
            raise UsageError(
                f"no {needed} bytes for a round's updates in {folder or tempfile.gettempdir()}: {error.strerror}: "
                "make room, or use a strategy that needs no spill"
            ) from None

    def __len__(self) -> int:
        return len(self._keys)

    def clear(self) -> None:
        """Drop all updates; the file keeps its room."""
        self._keys, self._weights = [], []

    def add(self, key: Key, delta: np.ndarray, weight: int) -> None:
        """Keep `delta`, (P,) float32; CodecError if the spill is full. `key` says which update it is."""
        if len(self) >= self._rows:
            raise CodecError(f"the spill has no room for more than {self._rows} updates: raise spill_mb")
        data = np.ascontiguousarray(delta, "<f4").data.cast("B")
        if len(data) != self._row_bytes:
            raise CodecError(f"delta of {len(data)} bytes where {self._row_bytes} were expected")
        self._write(data, len(self) * self._row_bytes)
        self._keys.append(key)
        self._weights.append(weight)

    def _write(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise StoreError(f"an update can't be spilled: {error.strerror}: make room on the disk") from error

    def _order(self) -> list[int]:
        """Rows by their keys, so that the order in which updates came does not matter."""
        return sorted(range(len(self)), key=lambda row: self._keys[row])

    def newest(self) -> dict[str, int]:
        """Each device, by name, and the row of its least stale update."""
        first: dict[str, int] = {}
        for row in self._order():
            first.setdefault(self._keys[row][0], row)
        return first

    @property
    def weights(self) -> np.ndarray:
        """(k,) int64, in the order of the rows that `chunks` yields."""
        return np.array([self._weights[row] for row in self._order()], np.int64)

    def chunks(
        self, chunk_bytes: int = CHUNK_BYTES, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Neighbouring coordinates and their (k, c) float32, one row an update, in about `chunk_bytes` each. `rows`:
        which updates, and in which order; None: all, by their keys."""
        order, num_params = self._order() if rows is None else list(rows), self._row_bytes // 4
        width = max(1, min(num_params, chunk_bytes // (4 * max(1, len(order)))))
        for first in range(0, num_params, width):
            where = slice(first, min(first + width, num_params))
            chunk = np.empty((len(order), where.stop - first), "<f4")
            for row, target in zip(order, chunk, strict=True):
                self._read(target.data.cast("B"), row * self._row_bytes + 4 * first)
            yield where, chunk.astype(np.float32, copy=False)

    def _read(self, target: memoryview, offset: int) -> None:
        try:
            while target:
                got = os.preadv(self._file.fileno(), [target], offset)
                if got == 0:
                    raise OSError(0, "the file has ended")
                target, offset = target[got:], offset + got
        except OSError as error:
            raise StoreError(f"a spilled update can't be read: {error.strerror}: check the disk") from error

    def close(self) -> None:
        self._file.close()
