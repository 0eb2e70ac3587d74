"""Answers: what a device does with what it is told of its report, and with a model that it shall judge. No I/O.

Part of DeviceSession.
"""

from __future__ import annotations

from ...machine import Sent
from ...protocol.inbox import Judge, Missing, Receipt
from ...protocol.trouble import Trouble
from ..participation import Participation
from .update_report import UpdateReport


class Answers(Participation):
    """What comes for this device alone: the broker's acknowledgements, and the messages in its inbox."""

    def on_sent(self, event: Sent, now: float) -> None:
        """The broker has acknowledged, or refused, a part of the update."""
        if isinstance(self.work, UpdateReport):
            self.out += self.work.on_sent(event.token, event.ok, now)

    def on_missing(self, message: Missing, now: float) -> None:
        """The aggregator asks for parts of the update."""
        report = self.work
        if self.online and isinstance(report, UpdateReport) and report.number == message.round:
            self.out += report.on_missing(message.parts, now)

    def on_receipt(self, receipt: Receipt, now: float) -> None:
        """The aggregator has counted the update, or rejected it."""
        report = self.work
        if not isinstance(report, UpdateReport) or not report.is_answered_by(receipt):
            return
        if not self._saved.is_meant_by(receipt):
            return
        assert self.terms is not None
        why = "" if receipt.outcome == "counted" else f"round {receipt.round}: {receipt.outcome}: {receipt.reason}"
        if why:
            self.out += self._reporting.on_rejected(why)
        elif self.online or receipt.folded or not report.is_late:
            slots = self.terms.manifest.keeps_slots
            self.out += self._reporting.on_counted(report, receipt, slots=slots, now=now)
        if self._saved.outbox is not None:
            return
        if report.is_late:  # it is settled: the device may take part in the open round
            self.work = None
            self.consider(now)
        else:
            is_sound = receipt.folded > 0  # its own round was over, and this device does not know that yet
            trouble = Trouble("rejected", why) if why and not is_sound else None
            self.give_up(report.round, trouble, now, tries_again=False)  # it would be rejected again
            self.publish_status()

    def on_judge(self, judge: Judge, now: float) -> None:
        """The aggregator asks for a verdict; it asks again if this device is busy, or its owner does not let it."""
        free = self.work is None or isinstance(self.work, UpdateReport)
        if self.consent.policy.masked:  # it would tell what one device's examples say
            return
        if self.terms is None or not (free and self.online) or self.status.hindered or self.status.sits_out:
            return
        if self.allowance.closed(now) is not None:
            return
        lengths = [max(frame.keyframe, frame.delta) for frame in judge.round.frames[-1:]]
        if not self.models.has(judge.round) and self.allowance.stops(self.terms, lengths, now) is not None:
            return
        self.out += self.canary.ask(judge, self.round, self.terms, now)
