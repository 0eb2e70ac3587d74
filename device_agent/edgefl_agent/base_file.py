"""BaseFile: the params that no training changes, in a file of the agent's state folder: one, of at most a model.

It is read once, at the start, and believed by its SHA-256 alone (edgefl/device/model/frozen.py): a damaged one is
fetched again, and so is one that could not be written.
"""

from __future__ import annotations

import logging
from pathlib import Path

from edgefl.atomic import remove_partials, write_atomically
from edgefl.device.events import KeepBase

NAME = "base.f32"
log = logging.getLogger("edgefl.agent")


class BaseFile:
    """`most` bytes are read and written at most."""

    def __init__(self, folder: Path, most: int) -> None:
        self._path, self._most = folder / NAME, most

    def load(self) -> bytes:
        """The base as stored; b"" if it is missing or unreadable. Removes what a killed process left half written."""
        try:
            remove_partials(self._path.parent, NAME)
            return self._path.read_bytes() if self._path.stat().st_size <= self._most else b""
        except OSError:
            return b""

    def keep(self, action: KeepBase) -> None:
        """Whole and durable, or not at all."""
        if len(action.numbers) > self._most:
            return
        try:
            write_atomically(self._path, action.numbers)
        except OSError as error:
            log.warning(
                "can't keep the frozen part of the model in %s (%s), so the next start fetches it again: make room",
                self._path, error.strerror,
            )  # fmt: skip
