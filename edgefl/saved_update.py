"""SavedUpdate: the newest update, kept until its round is over, and what becomes of the residual that it leaves.

The receipt "counted" is the aggregator's word that an update is in the round's sum, not yet that the round was
committed. That shows when the next round is announced: on a newer model, the update has gone into it. Part of
DeviceSession; no I/O.
"""

from __future__ import annotations

from dataclasses import replace

from .device_events import DropUpdate, MarkCounted, Outbox, SaveUpdate
from .protocol.messages import Round


class SavedUpdate:
    """`outbox` is what lies on disk, or None."""

    def __init__(self, outbox: Outbox | None) -> None:
        self.outbox = outbox

    def save(self, round: Round, blob: bytes, residual: bytes | None) -> list[object]:
        """A new update; `residual` is what encoding took from it."""
        self.outbox = Outbox(round.manifest, round.round, round.version, blob)
        return [SaveUpdate(self.outbox, residual)]

    def serves(self, round: Round) -> bool:
        saved = self.outbox
        if saved is None:
            return False
        mine = (saved.manifest, saved.round, saved.version, saved.mode)
        return mine == (round.manifest, round.round, round.version, round.mode)

    def mark_counted(self, attempt: int, durable: bool) -> list[object]:
        """It is counted in this attempt of its round; 0: in none any more. `durable` if a residual waits for that."""
        if self.outbox is None or self.outbox.counted == attempt:
            return []
        self.outbox = replace(self.outbox, counted=attempt)
        return [MarkCounted(attempt)] if durable else []

    def drop(self, round: Round | None = None) -> list[object]:
        """Its round is over, and `round` is announced; None: it was refused.

        Where a device has missed rounds, which of them were abandoned can't be known: the receipt decides. A mere
        evaluation goes into no model, and leaves the device's residual alone.
        """
        saved, self.outbox = self.outbox, None
        if saved is None:
            return []
        if round is None or round.manifest != saved.manifest or round.round <= saved.round:
            return [DropUpdate()]
        applied = saved.mode == "train" and saved.counted > 0 and round.version > saved.version
        return [DropUpdate(applied)]
