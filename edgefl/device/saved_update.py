"""SavedUpdate: the newest update, kept until its round is over, and what becomes of the residual that it leaves.

The receipt "counted" is the aggregator's word that an update is in the round's sum, not yet that the round was
committed. That shows when the next round is announced: on a newer model, the update has gone into it. A late update is
settled by its receipt alone: its device goes on to the round that is open. Part of DeviceSession; no I/O.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProtocolError
from ..protocol.messages import Round
from .events import Action, DropUpdate, MarkCounted, Outbox, SaveUpdate


class SavedUpdate:
    """`outbox` is what lies on disk, or None."""

    def __init__(self, outbox: Outbox | None) -> None:
        self.outbox = outbox

    def save(self, round: Round, blob: bytes, residual: bytes | None) -> list[Action]:
        """A new update; `residual` is what encoding took from it."""
        self.outbox = Outbox(round.manifest, round.round, round.version, blob, attempt=round.attempt)
        return [SaveUpdate(self.outbox, residual)]

    def serves(self, round: Round) -> bool:
        saved = self.outbox
        if saved is None:
            return False
        mine = (saved.manifest, saved.round, saved.version, saved.mode)
        return mine == (round.manifest, round.round, round.version, round.mode)

    def late(self, round: Round) -> bool:
        """Whether it is of an earlier round, and `round` still takes it: it was not counted, or its round abandoned.

        Only where the aggregator has not restarted, and no round was missed, does the receipt prove that it is in the
        model; else it is sent again, and the aggregator knows.
        """
        saved = self.outbox
        if saved is None or saved.manifest != round.manifest or saved.mode != "train":
            return False
        proven = saved.counted == round.attempt and round.round == saved.round + 1
        return is_late(saved.round, round) and (not proven or round.version == saved.version)

    def mark_counted(self, attempt: int, durable: bool) -> list[Action]:
        """It is counted in this attempt of its round; 0: in none any more. `durable` if a residual waits for that."""
        if self.outbox is None or self.outbox.counted == attempt:
            return []
        self.outbox = replace(self.outbox, counted=attempt)
        return [MarkCounted(attempt)] if durable else []

    def check(self, round: Round) -> None:
        """ProtocolError for a round before the saved update's: a broker may announce one to a device that restarted.

        Not if its attempt is higher: then the aggregator itself has gone back, to a backup of its state.
        """
        saved = self.outbox
        if saved is None or saved.manifest != round.manifest:
            return
        if (round.attempt, round.round, round.version) < (saved.attempt, saved.round, saved.version):
            raise ProtocolError(f"round {round.round} is older than the update saved for round {saved.round}: dropped")

    def settle(self, round: Round) -> list[Action]:
        """`round` is announced: an update of one before has done its work, unless it is still taken.

        Where a device has missed rounds, which of them were abandoned can't be known: the receipt decides. A mere
        evaluation goes into no model, and leaves the device's residual alone. An update of another manifest stays until
        the next one is saved: a broker that has lost its memory may for a moment announce an earlier run.
        """
        saved = self.outbox
        if saved is None or saved.manifest != round.manifest or self.serves(round) or self.late(round):
            return []
        self.outbox = None
        newer = round.round > saved.round and round.version > saved.version
        return [DropUpdate(applied=newer and saved.counted > 0 and saved.mode == "train")]

    def fold(self) -> list[Action]:
        """It was late, and the receipt says that it is counted."""
        self.outbox = None
        return [DropUpdate(applied=True)]

    def drop(self) -> list[Action]:
        """It was refused."""
        saved, self.outbox = self.outbox, None
        return [] if saved is None else [DropUpdate()]


def is_late(number: int, round: Round) -> bool:
    """Whether an update of round `number` would be late for `round`, and taken all the same."""
    return round.state == "open" and 0 < round.round - number <= round.late_rounds
