"""Blobs in parts: cut a blob into envelopes, and assemble it again within bounds that are known beforehand."""

from __future__ import annotations

from typing import cast

from msgspec.structs import replace

from ..errors import ProtocolError
from .envelope import HEADER_BYTES, MAX_PARTS, MIN_PART_BYTES, Envelope, Kind, Slip, Unwritten, blob_id

DEFAULT_PART_BYTES = 64 * 1024 - HEADER_BYTES
TOPIC_BYTES = 1024  # of an MQTT packet, reserved for topic and properties


def fitting_part_bytes(wanted: int, total: int, max_packet_bytes: int | None) -> int:
    """`wanted`, lowered to what a broker accepts (None: it names no limit); a blob of `total` has at most MAX_PARTS."""
    if max_packet_bytes is None:
        return wanted
    shortest = max(MIN_PART_BYTES, -(-total // MAX_PARTS))
    return min(wanted, max(shortest, max_packet_bytes - TOPIC_BYTES - HEADER_BYTES))


def quick_part_bytes(rate: float, keepalive_s: float) -> int:
    """The longest part that takes at most a quarter of the keep-alive at `rate` bytes a second: signs of life wait
    behind it, and a part that is cut off begins again."""
    return max(MIN_PART_BYTES, int(rate * keepalive_s / 4))


class Splitter:
    """Cuts `blob` into parts of `part_bytes`. A part is made when it is asked for, so no second copy of all exists."""

    def __init__(
        self,
        blob: bytes | Unwritten,
        part_bytes: int,
        *,
        kind: Kind,
        codec: int,
        federation: int,
        round: int,
        version: int,
    ) -> None:
        self.part_bytes = part_bytes
        self.parts = -(-len(blob) // part_bytes)
        if self.parts > MAX_PARTS:
            raise ProtocolError(f"{len(blob)} bytes need more than {MAX_PARTS} parts: raise part_bytes")
        self._blob = blob if isinstance(blob, Unwritten) else memoryview(blob)
        mark = blob.blob_id if isinstance(blob, Unwritten) else blob_id(blob)
        self._envelope = Envelope(
            kind, codec, federation, round, version, 0, self.parts, part_bytes, len(blob), mark, b""
        )

    def part(self, index: int) -> bytes:
        """Envelope and bytes of part `index`."""
        if isinstance(self._blob, Unwritten):
            return cast(bytes, Slip(replace(self._envelope, part=index), self._blob))  # machines measure and read it
        size = self.part_bytes
        data = self._blob[index * size : (index + 1) * size]
        return replace(self._envelope, part=index, data=data).to_bytes()


class Assembler:
    """Assembles one blob from parts in any order, repeated or not.

    `max_total` is the longest that the blob can be by our own plan; every part must name the other arguments.
    """

    def __init__(self, *, kind: Kind, federation: int, round: int, version: int, max_total: int) -> None:
        self._expected = (kind, federation, round, version)
        self.max_total = max_total
        self._first: Envelope | None = None
        self._data: dict[int, bytes | memoryview] = {}
        self.buffered = 0

    def add(self, envelope: Envelope) -> bool:
        """Keep a part; True when the blob is whole. ProtocolError if it does not belong here.

        A part of another blob starts over: its sender has begun a new attempt.
        """
        if (envelope.kind, envelope.federation, envelope.round, envelope.version) != self._expected:
            raise ProtocolError(
                f"part of round {envelope.round}, model version {envelope.version}, federation hash "
                f"{envelope.federation:08x} does not belong to what is open here: dropped",
                "round",
            )
        if envelope.total > self.max_total:
            raise ProtocolError(
                f"blob of {envelope.total} bytes where the plan allows {self.max_total}: dropped", "size"
            )
        first = self._first
        if first is None or first.blob != envelope.blob:
            self._first, self._data, self.buffered = replace(envelope, data=b""), {}, 0
        elif not _same_cut(envelope, first):
            raise ProtocolError(f"part {envelope.part} disagrees with the parts before it: dropped", "round")
        if envelope.part not in self._data:
            self._data[envelope.part] = envelope.data
            self.buffered += len(envelope.data)
        return len(self._data) == envelope.parts

    def is_cut_like(self, envelope: Envelope) -> bool:
        """Whether the part is of a blob of the same length in parts of the same length. A sender that begins again may
        cut an update into other parts."""
        first = self._first
        return first is not None and (first.total, first.part_bytes) == (envelope.total, envelope.part_bytes)

    def clear(self) -> None:
        """Drop the bytes: all parts are missing again. Parts of the same blob still fit."""
        self._data, self.buffered = {}, 0

    @property
    def total(self) -> int:
        """Bytes of the blob; 0 before the first part."""
        return self._first.total if self._first else 0

    @property
    def parts(self) -> int:
        """Number of the blob's parts; 0 before the first one."""
        return self._first.parts if self._first else 0

    @property
    def codec(self) -> int:
        """The codec byte that all parts carry."""
        assert self._first is not None
        return self._first.codec

    @property
    def lacks(self) -> int:
        """How many parts have not come yet."""
        return self.parts - len(self._data)

    def missing(self) -> list[int]:
        """Parts that have not come yet; empty before the first one, since their number is not known."""
        return [] if self._first is None else [i for i in range(self._first.parts) if i not in self._data]

    def blob(self) -> bytes:
        """The whole blob. Each part's CRC32C covers its bytes and the fields that identify its blob."""
        assert self._first is not None and not self.missing()
        if self._first.parts == 1 and isinstance(whole := self._data[0], bytes):
            return whole
        return b"".join(self._data[i] for i in range(self._first.parts))


def _same_cut(a: Envelope, b: Envelope) -> bool:
    """Whether two parts of one blob agree on how it is cut."""
    return (a.codec, a.parts, a.part_bytes, a.total) == (b.codec, b.parts, b.part_bytes, b.total)
