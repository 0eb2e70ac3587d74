"""Disk: what a simulated device keeps over a restart. A test holds the agent's store, edgefl_agent/store.py, to it."""

from __future__ import annotations

from dataclasses import replace

from ..codecs.feedback import Residual
from ..device.events import Outbox


class Disk:
    """The newest update with its new residual, and the current residual, of 2 P bytes once the device has reported."""

    def __init__(self) -> None:
        self.outbox: Outbox | None = None
        self.residual: Residual | None = None
        self.in_model = 0  # the stamp of the data that are in a model
        self._pending: Residual | None = None

    def save(self, outbox: Outbox, residual: bytes | None) -> None:
        """SaveUpdate. The current residual is dropped if it is of another manifest."""
        self.outbox, self._pending = outbox, None
        if residual is not None:
            self._pending = Residual.of(outbox.manifest, outbox.round, residual)
        if self.residual is not None and self.residual.manifest != outbox.manifest:
            self.residual = None

    def mark_counted(self, attempt: int) -> None:
        """MarkCounted."""
        assert self.outbox is not None
        self.outbox = replace(self.outbox, counted=attempt)

    def drop(self, applied: bool) -> None:
        """DropUpdate."""
        if applied:
            self.residual = self._pending
            self.in_model = self.outbox.stamp if self.outbox else 0
        self.outbox = self._pending = None
