"""BlobFetch: how a device pulls one blob of a model, by subscribing to its retained parts a few at a time.

The broker serves them, so flow control and resumption come by themselves and the aggregator is not asked.
Part of ModelFetch; no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..errors import ProtocolError
from ..machine import Subscribe, Unsubscribe
from ..protocol.envelope import Envelope, Kind
from ..protocol.parts import Assembler
from .events import Action

WINDOW = 4  # parts asked for at once


class BlobFetch:
    """The fetch of `size` bytes in parts of `part_bytes`; `topic` names a part's. `codec` is what they must carry."""

    def __init__(
        self, topic: Callable[[int], str], *, federation: int, version: int, codec: int, size: int, part_bytes: int
    ) -> None:
        self._topic = topic
        self._codec = codec
        self._assembler = Assembler(kind=Kind.MODEL, federation=federation, round=0, version=version, max_total=size)
        self._ahead = deque(range(-(-size // part_bytes)))
        self._wanted = {self._ahead.popleft() for _ in range(min(WINDOW, len(self._ahead)))}

    def ask(self) -> list[Action]:
        """Subscribe to the parts that are due."""
        return [Subscribe(self._topics())] if self._wanted else []

    def cancel(self) -> list[Action]:
        """Leave no subscription behind."""
        return [Unsubscribe(self._topics())] if self._wanted else []

    def wants(self, part: int) -> bool:
        return part in self._wanted

    def add(self, part: int, payload: bytes) -> list[Action]:
        """Take one part in that is wanted; ProtocolError if it is not what its topic promises."""
        envelope = Envelope.from_bytes(payload)
        if envelope.part != part or envelope.codec != self._codec:
            raise ProtocolError(
                f"part {envelope.part} in codec {envelope.codec} is not what the topic promises: dropped"
            )
        self._assembler.add(envelope)
        self._wanted.discard(part)
        out: list[Action] = [Unsubscribe((self._topic(part),))]
        if self._ahead:
            following = self._ahead.popleft()
            self._wanted.add(following)
            out.append(Subscribe((self._topic(following),)))
        return out

    @property
    def ended(self) -> bool:
        """All has come that was asked for."""
        return not self._wanted

    def blob(self) -> bytes | None:
        """The blob; None if parts of it are missing, because what came are parts of different ones."""
        return None if self._assembler.missing() else self._assembler.blob()

    def _topics(self) -> tuple[str, ...]:
        return tuple(self._topic(part) for part in sorted(self._wanted))
