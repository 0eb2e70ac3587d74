"""ModelFetch: how a device pulls a model, by subscribing to its retained parts a few at a time.

The broker serves them, so flow control and resumption come by themselves and the aggregator is not asked.
Part of DeviceSession; no I/O.
"""

from __future__ import annotations

import hashlib
from collections import deque

from .codecs.raw32 import Raw32
from .errors import ProtocolError
from .protocol.envelope import Envelope, Kind
from .protocol.machine import Note, Subscribe, Unsubscribe
from .protocol.messages import Manifest, Round
from .protocol.parts import Assembler
from .protocol.topics import Topics

WINDOW = 4  # parts asked for at once
PATIENCE_S = 30.0  # before asking again


class ModelFetch:
    """The fetch of one model version. `blob` is set when the bytes are whole and their SHA-256 is the round's."""

    def __init__(self, topics: Topics, manifest: Manifest, federation_hash: int, round: Round, now: float) -> None:
        self.round = round
        self.blob: bytes | None = None
        self._topics = topics
        self._manifest = manifest
        self._hash = federation_hash
        self._restart(now)

    def _restart(self, now: float) -> None:
        round = self.round
        self._assembler = Assembler(
            kind=Kind.MODEL, federation=self._hash, round=0, version=round.version, max_total=round.model_bytes
        )
        self._ahead = deque(range(-(-round.model_bytes // self._manifest.part_bytes)))
        self._wanted = {self._ahead.popleft() for _ in range(min(WINDOW, len(self._ahead)))}
        self.retry_at = now + PATIENCE_S

    def ask(self, now: float) -> list[object]:
        """Subscribe to the parts that are due: at the start, after a reconnection, and when patience has ended."""
        self.retry_at = now + PATIENCE_S
        return [Subscribe(self._wanted_topics())]

    def cancel(self) -> list[object]:
        """Leave no subscription behind."""
        return [Unsubscribe(self._wanted_topics())] if self._wanted else []

    def on_part(self, version: int, part: int, payload: bytes, now: float) -> list[object]:
        """Take one part in; ProtocolError if it is not what its topic promises."""
        if version != self.round.version or part not in self._wanted:
            return []  # a straggler of a fetch that is over
        envelope = Envelope.from_bytes(payload)
        if envelope.part != part or envelope.codec != Raw32.wire_id:
            raise ProtocolError(
                f"part {envelope.part} in codec {envelope.codec} is not what the topic promises: dropped"
            )
        whole = self._assembler.add(envelope)
        self._wanted.discard(part)
        self.retry_at = now + PATIENCE_S
        out: list[object] = [Unsubscribe((self._topics.model(version, part),))]
        if self._ahead:
            following = self._ahead.popleft()
            self._wanted.add(following)
            out.append(Subscribe((self._topics.model(version, following),)))
        return [*out, *self._finish(whole, now)] if whole or not self._wanted else out

    def _finish(self, whole: bool, now: float) -> list[object]:
        """All has come that was asked for: the model, or parts of another blob under its name."""
        blob = self._assembler.blob() if whole else None
        if blob is not None and hashlib.sha256(blob).hexdigest() == self.round.model_sha256:
            self.blob = blob
            return []
        self._restart(now)  # asks again when patience ends: what is retained may be put right by then
        return [Note("warning", f"model {self.round.version}: SHA-256 is not the round's; it is fetched again")]

    def _wanted_topics(self) -> tuple[str, ...]:
        return tuple(self._topics.model(self.round.version, part) for part in sorted(self._wanted))
