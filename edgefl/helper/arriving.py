"""Arriving: an ask, from parts to the whole. One at a time; its bytes are bounded by how many devices are enrolled."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import ProtocolError
from ..masking.exchange import ask_bound
from ..protocol.envelope import Envelope, Kind
from ..protocol.parts import Assembler
from ..protocol.topics import Topics

SLACK = 1000  # devices more than the roster has twice: of a newer one than ours, which are then refused by name


class Whole(NamedTuple):
    """An ask, and the marks that the envelopes of its answer bear too."""

    blob: bytes
    hash: int
    round: int
    version: int


def most_devices(enrolled: int) -> int:
    """The most devices that an ask is read with, where so many are enrolled."""
    return 2 * enrolled + SLACK


class Arriving:
    """`add` takes the parts of asks, in any order."""

    def __init__(self, topics: Topics, name: str) -> None:
        self._topics, self._name = topics, name
        self._marks: tuple[int, int, int] | None = None
        self._assembler: Assembler | None = None

    def clear(self) -> None:
        """Parts that have come count no more: the connection was lost."""
        self._marks = self._assembler = None

    def add(self, topic: str, payload: bytes, enrolled: int) -> Whole | None:
        """The ask, when this part completes it; ProtocolError if it is no part of one."""
        where = self._topics.ask_part(topic)
        if where is None or where.helper != self._name:
            raise ProtocolError(f"{topic[:120]!r} is not the topic of our asks: dropped")
        part = Envelope.from_bytes(payload)
        if part.part != where.part:
            raise ProtocolError(f"part {part.part} of an ask on another's topic: dropped")
        marks = (part.federation, part.round, part.version)
        if self._assembler is None or marks != self._marks:
            self._marks = marks
            self._assembler = Assembler(
                kind=Kind.ASK, federation=part.federation, round=part.round, version=part.version,
                max_total=ask_bound(most_devices(enrolled)),
            )  # fmt: skip
        if part.total > ask_bound(most_devices(enrolled)):
            raise ProtocolError(
                f"ask of {part.total} bytes, for more than {most_devices(enrolled)} devices, and our roster has "
                f"{enrolled}: copy the operator's newest roster.json here: dropped", "size"
            )  # fmt: skip
        if not self._assembler.add(part):
            return None
        blob = self._assembler.blob()
        self.clear()
        return Whole(blob, *marks)
