"""Reporting: an update from the end of its training to its receipt: saved, reported, counted or rejected.

It also keeps the number of bytes received, which the update's header reports. It does not decide what the device does
next: DeviceSession does. saved_update.py has the rules of what is kept, update_report.py those of sending. No I/O.
"""

from __future__ import annotations

import itertools
import random

from ...machine import Note
from ...protocol.inbox import Receipt
from ...protocol.round import Round
from ...protocol.topics import Topics
from ..events import Action, Outbox, Trained
from ..patience import Patience
from ..work import Terms
from .saved_update import SavedUpdate
from .update_report import UpdateReport


class Reporting:
    """`saved` is the update on disk, `bytes_down` what was received since the last update that is known to be
    counted."""

    def __init__(
        self, topics: Topics, device: str, *, patience: Patience, rng: random.Random, outbox: Outbox | None,
        in_model: int = 0,
    ) -> None:  # fmt: skip
        self.saved = SavedUpdate(device, outbox, in_model)
        self.bytes_down = 0
        self._bytes_told = 0  # of these, the bytes that the saved update's header reports
        self._topics = topics
        self._device = device
        self._patience = patience
        self._rng = rng
        self._tokens = itertools.count(1)  # of all reports: an acknowledgement may come after its report has ended
        self._cut: tuple[tuple[str, int, int], int] | None = None  # an update, and the longest part that it is cut into

    def receive(self, num_bytes: int) -> None:
        """A message of this length has arrived."""
        self.bytes_down += num_bytes

    def save(self, round: Round, result: Trained, signer: str = "") -> list[Action]:
        """Training has ended: keep its update until the round is over. `signer` names the key that signed the round."""
        self._bytes_told = result.job.bytes_down
        return self.saved.save(round, result, signer)

    def begin(self, terms: Terms, round: Round, max_packet_bytes: int | None) -> tuple[UpdateReport, list[Action]]:
        """A report of the saved update, while `round` is the newest; and what the host has to store."""
        saved = self.saved.outbox
        assert saved is not None
        splitter = terms.split(saved, max_packet_bytes, self._longest(saved))
        report = UpdateReport(
            round, saved.round, splitter, topics=self._topics, device=self._device, patience=self._patience,
            tokens=self._tokens, rng=self._rng, asks=self.saved.only_asks(round),
        )  # fmt: skip
        if saved.counted == round.attempt:
            return report, []
        return report, self.saved.mark_counted(0, durable=terms.manifest.keeps_slots)  # only another attempt has

    def _longest(self, saved: Outbox) -> int:
        """The longest part that suits the link, decided once for each update: parts of two cuts don't fit together."""
        update = saved.manifest, saved.round, saved.version
        if self._cut is None or self._cut[0] != update:
            self._cut = update, self._patience.part_bytes
        return self._cut[1]

    def on_counted(self, report: UpdateReport, receipt: Receipt, *, slots: bool, now: float) -> list[Action]:
        """The update is counted: in the round `receipt.folded`, or in its own round, which is still open, if that is 0.
        With `slots`, what the update left depends on that. A late update is dropped, since its receipt settles it."""
        folded = receipt.folded
        if report.is_late and not folded:  # its own round may have been abandoned since
            return report.probe(now)
        where = f"counted in round {folded}: it was late" if folded else "counted"
        out: list[Action] = [Note("info", f"round {report.number}: update {where}", round=report.number)]
        report.count()
        self.bytes_down, self._bytes_told = self.bytes_down - self._bytes_told, 0
        if report.is_late:
            return out + self.saved.settle_late()
        return out + self.saved.mark_counted(report.round.attempt, durable=slots)

    def on_rejected(self, why: str) -> list[Action]:
        """The aggregator has rejected the update: it is dropped."""
        return [Note("warning", f"update of {why}", "update rejected"), *self.saved.drop()]
