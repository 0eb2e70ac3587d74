"""Reception: updates as they come in, from parts to the strategy's sum, each whole one answered by a receipt. No I/O.

Part of RoundCoordinator, which says what is open and closes it.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from .codecs import Codec
from .errors import CodecError, ProtocolError
from .presence import Presence
from .protocol.envelope import Envelope
from .protocol.machine import Note, Publish, Received
from .protocol.messages import Missing, Receipt, UpdateHeader, encode
from .protocol.topics import Topics, UpdateTopic
from .strategies import Strategy, Update
from .tally import Tally


class Reception:
    """`dropped` counts messages that were not what the protocol says, by sender; `late` parts of rounds not open."""

    def __init__(self, topics: Topics, codec: Codec, strategy: Strategy, presence: Presence, attempt: int) -> None:
        self.dropped: Counter[str] = Counter()
        self.late = 0
        self._topics = topics
        self._codec = codec
        self._strategy = strategy
        self._presence = presence
        self._attempt = attempt

    def drop(self, device: str | None, topic: str, error: ProtocolError) -> Note:
        """Count a message that can't be taken, and name its sender."""
        sender = device or "?"
        self.dropped[sender] += 1
        return Note(
            "warning", f"message number {self.dropped[sender]} dropped from {sender} on {topic[:120]!r}: {error}"
        )

    def take(self, tally: Tally | None, event: Received, now: float) -> list[object]:
        """One part of an update; `tally` None: no round is open. ProtocolError if it is not what its topic says."""
        where = self._topics.parse_update(event.topic)
        if tally is None or where.round != tally.round:
            self.late += 1
            return []
        envelope = Envelope.from_bytes(event.payload)
        if (envelope.round, envelope.part) != (where.round, where.part):
            raise ProtocolError(f"envelope of round {envelope.round}, part {envelope.part} on another's topic: dropped")
        if not tally.cohort.asks(where.device):
            raise ProtocolError(f"an update of a device that was not asked in round {where.round}: dropped")
        tally.receive(where.device, len(event.payload))
        if where.device in tally.counted:
            return [self._receipt(where, "counted")] if envelope.part == 0 else []
        self._presence.hear(where.device)
        blob = tally.intake.add(where.device, envelope, now)
        return [*(() if blob is None else self._count(tally, where, blob)), *self.ask(tally, now)]

    def ask(self, tally: Tally, now: float) -> list[object]:
        """Requests for parts that are due."""
        return [
            Publish(self._topics.inbox(device), encode(Missing(tally.round, parts)))
            for device, parts in tally.intake.ask(now, self._presence.is_present)
        ]

    def _count(self, tally: Tally, where: UpdateTopic, blob: bytes) -> list[object]:
        """Add one whole update to the strategy, or reject it with nothing changed."""
        device = where.device
        try:
            header = UpdateHeader.from_bytes(blob)
            payload = memoryview(blob)[UpdateHeader.SIZE :]
            self._strategy.add(Update(device, header.num_examples, self._codec, payload))
        except (ProtocolError, CodecError) as error:
            tally.reject(device)
            self.dropped[device] += 1
            note = Note("warning", f"round {where.round}: update of {device} rejected: {error}")
            return [note, self._receipt(where, "rejected", str(error)[:500])]
        tally.count(device, header)
        note = Note("debug", f"round {where.round}: {device}, {header.num_examples} examples, loss {header.loss:.4f}")
        return [note, self._receipt(where, "counted")]

    def _receipt(self, where: UpdateTopic, outcome: Literal["counted", "rejected"], reason: str = "") -> Publish:
        receipt = Receipt(where.round, self._attempt, outcome, reason)
        return Publish(self._topics.inbox(where.device), encode(receipt))
