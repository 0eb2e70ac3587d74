"""MaskedSum: what has arrived of one masked round: a sum for each group, and what the helpers are to be shown. No I/O.

A masked vector is added to its group's sum as it comes, modulo 2^m, and dropped. Of each device stay a digest of its
vector, its sealed seeds and its signature. Part of RoundCoordinator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ProtocolError
from ..masking import ring
from ..masking.exchange import Entry
from ..masking.ring import Ring
from ..masking.update import read
from ..protocol.terms import Terms


class MaskedSum:
    """`sums` are (L,) uint32, one a group, in which bits above the modulus do not count. `entries` are by device.
    `certificates`: what the root says of the helpers in the terms."""

    def __init__(self, terms: Terms, certificates: Sequence[str] = ()) -> None:
        self.terms, self.certificates = terms, list(certificates)
        self.sums: list[Ring] = [np.zeros(terms.length, np.uint32) for _ in range(terms.groups)]
        self.entries: dict[str, Entry] = {}

    @property
    def is_full(self) -> bool:
        """Whether the sum may have no further update."""
        return len(self.entries) >= self.terms.most

    def add(self, device: str, payload: memoryview, public: bytes) -> None:
        """Add the masked vector of a device with this public key; ProtocolError or CodecError, with nothing changed. A
        helper refuses a set with one wrong signature, so each is verified here."""
        found = read(payload, self.terms)
        if device in self.entries or self.is_full:
            raise ProtocolError(f"there is no room for more than {self.terms.most} masked updates: rejected", "room")
        if not found.is_signed(public):
            raise ProtocolError("masked update that its device has not signed for these terms: rejected", "signature")
        ring.add(self.sums[self.terms.group_of(device)], found.packed, self.terms.bits)
        self.entries[device] = Entry(device, found.packed_sha256, found.signature, found.boxes)
