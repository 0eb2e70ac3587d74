"""BlobFetch: how a device pulls one payload of a model, by subscribing to a few of its retained parts at a time.

The broker serves them, so flow control and resumption come by themselves, and the aggregator is not asked.
Part of ModelFetch; no I/O.
"""

from __future__ import annotations

from collections import deque

from ...errors import ProtocolError
from ...machine import Subscribe, Unsubscribe
from ...protocol.envelope import Envelope, Kind
from ...protocol.parts import Assembler
from ...protocol.topics import ModelTopic, Topics
from ..events import Action
from ..shelf import Shelf

WINDOW = 4  # parts asked for at once; fewer on a slow link (patience.py)


class BlobFetch:
    """The fetch of the payload of `size` bytes in parts of `part_bytes` that lies in `slot`."""

    def __init__(
        self, topics: Topics, slot: int, *, federation: int, version: int, codec: int, size: int, part_bytes: int,
        window: int = WINDOW, shelf: Shelf | None = None,
    ) -> None:  # fmt: skip
        self.slot = slot
        self._size = size
        self._shelf = shelf or Shelf()
        self._topics = topics
        self._part_bytes = part_bytes
        self._expected = (federation, version, codec, size, part_bytes)
        self._assembler = Assembler(kind=Kind.MODEL, federation=federation, round=0, version=version, max_total=size)
        self._ahead = deque(range(-(-size // part_bytes)))
        self._wanted = {self._ahead.popleft() for _ in range(min(window, len(self._ahead)))}
        self._window = window

    @property
    def outstanding(self) -> int:
        """Bytes that were asked for and have not come, at most."""
        return len(self._wanted) * self._part_bytes

    @property
    def lacks(self) -> int:
        """Bytes of the payload that have not come."""
        return self._size - self._assembler.buffered

    def widen(self, window: int) -> list[Action]:
        """Ask for so many parts at once from now on."""
        self._window = window
        more = [self._ahead.popleft() for _ in range(max(0, min(window - len(self._wanted), len(self._ahead))))]
        self._wanted.update(more)
        return [Subscribe(tuple(self._topic(part) for part in more))] if more else []

    def ask(self) -> list[Action]:
        """Subscribe to the parts that are due."""
        return [Subscribe(self._wanted_topics())] if self._wanted else []

    def cancel(self) -> list[Action]:
        """Leave no subscription behind."""
        return [Unsubscribe(self._wanted_topics())] if self._wanted else []

    def wants(self, topic: ModelTopic) -> bool:
        """Whether the part of this topic has been asked for and has not come yet."""
        return topic.slot == self.slot and topic.part in self._wanted

    def read(self, part: int, payload: bytes) -> Envelope | None:
        """The part that is wanted; None if it is one of another payload, which lies in the slot before or after ours.
        ProtocolError if it is not what belongs on its topic."""
        envelope = self._shelf.envelope(payload)
        if (envelope.kind, envelope.part) != (Kind.MODEL, part):
            raise ProtocolError(f"part {envelope.part}, kind {envelope.kind}, is not what the topic promises: dropped")
        found = (envelope.federation, envelope.version, envelope.codec, envelope.total, envelope.part_bytes)
        return envelope if found == self._expected else None

    def add(self, envelope: Envelope) -> list[Action]:
        """Keep a part that is wanted, and ask for the next one."""
        self._assembler.add(envelope)
        self._wanted.discard(envelope.part)
        out: list[Action] = [Unsubscribe((self._topic(envelope.part),))]
        if self._ahead and len(self._wanted) < self._window:
            following = self._ahead.popleft()
            self._wanted.add(following)
            out.append(Subscribe((self._topic(following),)))
        return out

    @property
    def ended(self) -> bool:
        """Whether all parts have come."""
        return not self._wanted

    def blob(self) -> bytes | None:
        """The payload; None if some of its parts are missing, because parts of two payloads came."""
        return None if self._assembler.missing() else self._assembler.blob()

    def _topic(self, part: int) -> str:
        return self._topics.model(self.slot, part)

    def _wanted_topics(self) -> tuple[str, ...]:
        return tuple(self._topic(part) for part in sorted(self._wanted))
