"""SavedUpdate: the newest update, kept until its round is over, and what becomes of its slots.

The receipt "counted" says that an update is in the round's sum, not yet that the round was committed. The next round
tells: if it is on a newer model, the update is in that model. A late update is settled by its receipt alone, since its
device goes on to the open round at once. Part of DeviceSession; no I/O.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from ...errors import ProtocolError
from ...protocol.inbox import Receipt
from ...protocol.round import UNEARNED_ROUNDS, Round
from ...protocol.terms import Terms, digest_of
from ...protocol.update_header import HIDING, UpdateHeader
from ..events import Action, DropUpdate, MarkCounted, Origin, Outbox, SaveUpdate, Trained
from ..slots import Slot


class SavedUpdate:
    """`asks`: what a device has of its own depends on whether its updates count, so it asks where it can't know.

    `outbox` is the update on disk, or None. `stamp` names the data as they are now, `in_model` those that are in a
    model; 0: not known."""

    def __init__(self, device: str, outbox: Outbox | None, in_model: int = 0) -> None:
        self.device, self.outbox = device, outbox
        self.stamp, self.in_model = 0, in_model
        self.asks = False

    @property
    def is_fresh(self) -> bool:
        """Whether the data have changed since they last counted. An update that is saved is taken to count until it is
        dropped."""
        saved = self.outbox
        known = saved.stamp if saved is not None and saved.mode == "train" else self.in_model
        return not self.stamp or self.stamp != known

    def save(self, round: Round, result: Trained, signer: str = "") -> list[Action]:
        """Keep a new update; `signer` names the key that signed its round."""
        self.stamp = result.stamp
        self.outbox = Outbox(
            round.manifest, round.round, round.version, result.blob, attempt=round.attempt, stamp=result.stamp
        )
        manifest = result.job.manifest
        spent = (terms.epsilon, terms.delta) if round.terms and (terms := Terms.read(round.terms)) else ()
        origin = Origin(round.model_sha256, result.norm, result.clipped_from, signer, manifest.run, *spent)
        slots = {name: Slot.of(name, manifest, round.round, blob) for name, blob in result.slots.items()}
        return [SaveUpdate(self.outbox, slots, origin)]

    def serves(self, round: Round) -> bool:
        """Whether the update is what `round` asks for."""
        saved = self.outbox
        if saved is None:
            return False
        mine = (saved.manifest, saved.round, saved.version, saved.mode)
        return mine == (round.manifest, round.round, round.version, round.mode) and _is_under(saved, round)

    def is_meant_by(self, receipt: Receipt) -> bool:
        """Whether a receipt for this round is about this update, and not about one from another model: a part of that
        may have been on its way for long."""
        saved = self.outbox
        return saved is None or receipt.version is None or receipt.version == saved.version

    def late(self, round: Round) -> bool:
        """Whether the update is of an earlier round, is of use in `round`, and may be in no model yet.

        A receipt proves that the update is in the model only if the aggregator has not restarted since and the device
        has missed no round. Otherwise the device sends the update again, and the aggregator knows whether it counts.
        """
        saved = self.outbox
        if saved is None or saved.manifest != round.manifest:
            return False
        proven = _is_proven(saved, round)
        asks = round.state != "done" and self.is_unsure(round)
        is_late = asks or round.is_late_for(self.device, saved.round, saved.mode)
        return is_late and (not proven or (saved.mode == "train" and round.version == saved.version))

    def is_unsure(self, round: Round) -> bool:
        """Whether a newer model may have the update, and nothing proves that it has: the receipt may be lost, or the
        round may have been abandoned while the device was away. What the update left is to be kept only if it
        counted. The device reports it again, however late updates are treated, and is told at its first part whether
        it did (coordinator/updates/reception.py)."""
        saved = self.outbox
        if saved is None or not self.asks or saved.manifest != round.manifest:
            return False
        recent = 0 < round.round - saved.round <= UNEARNED_ROUNDS
        return recent and saved.mode == "train" and not _is_proven(saved, round) and round.version > saved.version

    def only_asks(self, round: Round) -> bool:
        """Whether a report to `round` can do nothing but ask that, by its first part."""
        saved = self.outbox
        return (
            saved is not None and self.is_unsure(round) and not round.is_late_for(self.device, saved.round, saved.mode)
        )

    def mark_counted(self, attempt: int, durable: bool) -> list[Action]:
        """The update is counted in this attempt of its round; 0: in no attempt any more. `durable` if a slot
        depends on it."""
        if self.outbox is None or self.outbox.counted == attempt:
            return []
        self.outbox = replace(self.outbox, counted=attempt)
        return [MarkCounted(attempt)] if durable else []

    def check(self, round: Round) -> None:
        """ProtocolError if `round` is before the saved update's: a broker may send one to a device that restarted.

        A round of a higher attempt is accepted: the aggregator itself has gone back, to a backup of its state.
        """
        saved = self.outbox
        if saved is None or saved.manifest != round.manifest:
            return
        if (round.attempt, round.round, round.version) < (saved.attempt, saved.round, saved.version):
            raise ProtocolError(f"round {round.round} is older than the update saved for round {saved.round}: dropped")

    def settle(self, round: Round) -> list[Action]:
        """`round` is announced: drop the update of an earlier round, unless `round` accepts it.

        A device that has missed rounds can't know which of them were abandoned: there the receipt decides. An
        evaluation goes into no model, and leaves the device's slots alone. An update of another manifest stays until
        the next one is saved, since a broker that has lost its memory may announce an earlier run for a moment.
        """
        saved = self.outbox
        if saved is None or saved.manifest != round.manifest or self.serves(round) or self.late(round):
            return []
        if round.state == "waiting" and (saved.round >= round.round or _may_be_next(saved, round)):
            return []  # it opens again, and asks for the update then
        if self.is_unsure(round):  # and all is done: another run of the aggregator may tell
            return []
        newer = round.round > saved.round and round.version > saved.version
        return self._drop(saved, applied=newer and saved.counted > 0 and saved.mode == "train")

    def _drop(self, saved: Outbox, *, applied: bool) -> list[Action]:
        self.outbox = None
        if applied:
            self.in_model = saved.stamp
        return [DropUpdate(applied, "counted" if applied or saved.counted else "")]

    def settle_late(self) -> list[Action]:
        """The update was late, and the receipt says that it is counted."""
        saved = self.outbox
        return [] if saved is None else self._drop(saved, applied=saved.mode == "train")

    def drop(self, receipt: Literal["", "rejected"] = "rejected") -> list[Action]:
        """The aggregator has rejected the update, or has begun anew without it."""
        saved, self.outbox = self.outbox, None
        return [] if saved is None else [DropUpdate(receipt=receipt)]


def _may_be_next(saved: Outbox, waiting: Round) -> bool:
    """Whether the update's round may open again, though its aggregator, which was started again, names a later one: it
    passes over rounds for which too few devices are there, and with others there its next start does not. But where a
    round wants new data only, an update that is kept would keep its device out of it."""
    return waiting.attempt > saved.attempt and waiting.version == saved.version and not waiting.only_new_data


def _is_under(saved: Outbox, round: Round) -> bool:
    """Whether the update was masked as the terms of the round want it, or neither is masked."""
    masked = saved.blob[1] in HIDING
    if not (masked and round.terms):
        return masked == bool(round.terms)
    size = UpdateHeader.size_of(saved.blob)
    return bytes(saved.blob[size : size + 32]) == digest_of(round.terms.encode())


def _is_proven(saved: Outbox, round: Round) -> bool:
    """Whether a receipt tells what `round` says of the update's own round: no round and no restart lies between."""
    return saved.counted == round.attempt and round.round == saved.round + 1
