"""WaitingRoom: updates of a round whose bound on influence is not known before it closes (updates/admission.py).

They lie in one file without a name, so they are gone with the process, even after kill -9: their devices keep them, and
send them again. The file begins in memory, and its size is bounded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low

from ..errors import ProtocolError, StoreError

IN_MEMORY = 2**20


@dataclass(frozen=True)
class Waiting:
    """An update of `round`, which has been checked. `staleness`: see base.py; `norm`: that of its delta; `loss`: what
    its device has told."""

    device: str
    round: int
    staleness: int
    num_examples: int
    norm: float
    loss: float
    blob: bytes = b""


class WaitingRoom:
    """Room for `max_bytes`, in `folder` (None: the system's for temporary files)."""

    def __init__(self, max_bytes: int = 2**30, folder: Path | None = None) -> None:
        self._max_bytes, self._folder = max_bytes, folder
        self._places: list[tuple[Waiting, int, int]] = []  # without its blob, and where that lies; its length
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._size = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, update: Waiting) -> None:
        """Keep an update; ProtocolError, with nothing changed, if there is no room."""
        length = len(update.blob)
        if self._size + length > self._max_bytes:
            raise ProtocolError(
                "the first round has no room for more updates: raise [strategy] spill_mb, or set [admission] "
                "first_influence",
                "room",
            )
        try:
            if self._file is None:
                folder = None if self._folder is None else str(self._folder)
                self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=folder)  # noqa: SIM115
            self._file.seek(self._size)
            self._file.write(update.blob)
        except OSError as error:
            raise StoreError(f"an update can't be kept: {error.strerror}: make room on the disk") from error
        self._places.append((replace(update, blob=b""), self._size, length))
        self._size += length

    def __iter__(self) -> Iterator[Waiting]:
        """All of them, by device and round; one in memory at a time."""
        for update, where, length in sorted(self._places, key=lambda place: (place[0].device, place[0].round)):
            assert self._file is not None
            self._file.seek(where)
            yield replace(update, blob=self._file.read(length))

    @property
    def claims(self) -> dict[str, tuple[int, float]]:
        """n and ‖Δ‖ of each device's newest."""
        ordered = sorted((update for update, _, _ in self._places), key=lambda update: update.round)
        return {update.device: (update.num_examples, update.norm) for update in ordered}

    @property
    def usual_loss(self) -> float:
        """The median over devices, of each device's newest; there must be one at least."""
        ordered = sorted((update for update, _, _ in self._places), key=lambda update: update.round)
        return median_low({update.device: update.loss for update in ordered}.values())

    def clear(self) -> None:
        """Drop all of them."""
        self._places, self._size = [], 0
        if self._file is not None:
            self._file.close()
            self._file = None
