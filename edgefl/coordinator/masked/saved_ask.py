"""SavedAsk: a masked round that is closed, and whose sum the helpers have yet to open. No I/O.

Part of RoundCoordinator. It is on disk before they are asked. So an aggregator that dies meanwhile asks for the same
set again: a helper opens no second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ...errors import ProtocolError, StoreError
from ...history_record import RoundRecord
from ...masking.exchange import Ask, Entry
from ...masking.ring import Ring
from ...protocol.terms import Terms


class _Stored(msgspec.Struct, frozen=True):
    record: bytes
    terms: str
    entries: list[Entry]
    sums: list[bytes]


@dataclass(frozen=True, eq=False)
class SavedAsk:
    """`record` is the round's, as if it were committed. `sums` are (L,) uint32, one a group; `entries` by device."""

    record: RoundRecord
    terms: Terms
    entries: Mapping[str, Entry]
    sums: Sequence[Ring]

    def ask(self, attempt: int = 0) -> Ask:
        """What the helpers are asked."""
        return Ask(self.terms.text, attempt, tuple(entry for _, entry in sorted(self.entries.items())))

    @property
    def groups(self) -> list[list[str]]:
        """The devices of each group, in order."""
        out: list[list[str]] = [[] for _ in self.sums]
        for device in sorted(self.entries):
            out[self.terms.group_of(device)].append(device)
        return out

    def to_bytes(self) -> bytes:
        """As it is stored."""
        sums = [each.astype("<u4", copy=False).tobytes() for each in self.sums]
        record = msgspec.json.encode(self.record)
        return msgspec.msgpack.encode(_Stored(record, self.terms.text, list(self.entries.values()), sums))

    @classmethod
    def from_bytes(cls, raw: bytes) -> SavedAsk:
        """StoreError if these are not the bytes of one."""
        try:
            found = msgspec.msgpack.decode(raw, type=_Stored)
            record, terms = msgspec.json.decode(found.record, type=RoundRecord), Terms.read(found.terms)
        except (msgspec.DecodeError, UnicodeDecodeError, ProtocolError, RecursionError):
            raise StoreError("the set that helpers were asked for can't be read") from None
        sums = [np.frombuffer(each, "<u4").astype(np.uint32) for each in found.sums]
        if len(sums) != terms.groups or any(len(each) != terms.length for each in sums):
            raise StoreError("the sums that helpers were asked for are not as long as their terms say")
        return cls(record, terms, {entry.device: entry for entry in found.entries}, sums)
