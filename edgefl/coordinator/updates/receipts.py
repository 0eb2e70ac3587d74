"""Receipts: what devices and the log are told of the updates that have come. No I/O. Part of Reception."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from ...errors import CodecError, ProtocolError
from ...machine import Note, Publish
from ...protocol.inbox import Receipt
from ...protocol.messages import encode
from ...protocol.topics import Topics, UpdateTopic
from ...protocol.update_header import UpdateHeader
from ..events import Action, LateUpdate
from .admission import Judged
from .refused import Refused

MOST_SENDERS = 10_000  # whose violations are counted apart
NOT_KEPT = "it came late, and is not kept"
TOO_LATE = "it came too late to count"
REFUSED = "the model of its round was refused"
EARNED = f"{TOO_LATE}; rounds wait for this device again"
OWES = f"{EARNED} after {{}} more"


class Receipts:
    """`attempt` is the one that receipts name; `run` is "" without keys. `dropped` counts messages that violate the
    protocol, by sender, and as "?" those of more senders than `MOST_SENDERS`."""

    def __init__(self, topics: Topics, refused: Refused, run: str = "") -> None:
        self.attempt = 0
        self.dropped: Counter[str] = Counter()
        self._topics, self._refused, self._run = topics, refused, run

    def drop(self, device: str | None, topic: str, error: ProtocolError) -> Note:
        """Count a message that is dropped, and name its sender."""
        sender = device or "?"
        if sender not in self.dropped and len(self.dropped) >= MOST_SENDERS:
            sender = "?"
        self.dropped[sender] += 1
        self._refused.add(sender, error.code)
        text = f"message number {self.dropped[sender]} dropped from {sender} on {topic[:120]!r}: {error}"
        return Note("warning", text, self._refused.kind("dropped from", sender), device=device or "")

    def reject(self, where: UpdateTopic, error: ProtocolError | CodecError, version: int | None = None) -> list[Action]:
        """The update is refused as invalid; `version`: the model that it came from, where that is the reason."""
        self.dropped[where.device] += 1
        self._refused.add(where.device, error.code)
        why = str(error).removesuffix(": rejected")  # as outcome and log say
        text = f"round {where.round}: update of {where.device} rejected: {why}"
        note = Note("warning", text, self._refused.kind("rejected of", where.device), where.round, where.device)
        receipt = Receipt(where.round, self.attempt, "rejected", why[:500], version=version, run=self._run)
        return [note, self._publish(where, receipt)]

    def drop_late(self, late: LateUpdate, error: ProtocolError | CodecError) -> Note:
        """A late update that the host has kept, and whose device has its receipt, can't be added."""
        self._refused.add(late.device, error.code)
        text = f"late update of {late.device}, round {late.round}, is dropped: {error}"
        return Note("error", text, self._refused.kind("late of", late.device), late.round, late.device)

    def not_kept(self, where: UpdateTopic, why: str) -> Note:
        """There is no room for a late update. Its device may send it again and again."""
        text = f"round {where.round}: late update of {where.device} is not kept: {why}"
        return Note("warning", text, self._refused.kind("late of", where.device), where.round, where.device)

    def counted(self, where: UpdateTopic, folded: int) -> Publish:
        """The update is counted: in the later round `folded`, or, if that is 0, in its own, which is open."""
        return self._publish(where, Receipt(where.round, self.attempt, "counted", folded=folded, run=self._run))

    def too_late(self, where: UpdateTopic, reason: str = TOO_LATE, *, into: int) -> Publish:
        """The update is valid, and counts in no round; `into` is open, or the next one."""
        return self._publish(where, Receipt(where.round, self.attempt, "rejected", reason, folded=into, run=self._run))

    def lowered(self, where: UpdateTopic, judged: Judged) -> list[Action]:
        """The update counts with a lower weight than it claims, if it does."""
        if judged.claim is None or judged.header.num_examples >= judged.claim[0]:
            return []
        text = f"round {where.round}: update of {where.device} counts with the weight {judged.header.num_examples}"
        text += f", not {judged.claim[0]}: it is {judged.times:.3g} times the bound on influence"
        return [Note("info", text, self._refused.kind("lowered of", where.device), where.round, where.device)]

    def _publish(self, where: UpdateTopic, receipt: Receipt) -> Publish:
        return Publish(self._topics.inbox(where.device), _encoded(receipt))


def note_of(where: UpdateTopic, header: UpdateHeader) -> Note:
    """The line about an update that was added."""
    what = "masked" if header.is_masked else f"{header.num_examples} examples, loss {header.loss:.4f}"
    return Note("debug", f"round {where.round}: {where.device}, {what}", round=where.round, device=where.device)


@lru_cache(maxsize=8)
def _encoded(receipt: Receipt) -> bytes:
    """The receipts of a round are nearly all alike, and thousands may wait for the broker: they share their bytes."""
    return encode(receipt)
