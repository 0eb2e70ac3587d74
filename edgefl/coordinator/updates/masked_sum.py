"""MaskedSum: what has arrived of one masked round: a sum for each group, and what the helpers are to be shown. No I/O.

A masked vector is added to its group's sum as it comes, modulo 2^m. Of each device stay a digest of its vector, its
sealed seeds and its signature; and until the sum is opened the packed vector, in memory alone, so that it can be taken
out again if a helper can't open its seed. Where all of them would take more than KEPT_BYTES, none is kept. Part of
RoundCoordinator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from ...errors import ProtocolError
from ...masking import ring
from ...masking.exchange import Entry
from ...masking.ring import Ring
from ...masking.update import read
from ...protocol.terms import Terms

KEPT_BYTES = 64 * 2**20  # of the vectors of a round that are kept


class MaskedSum:
    """`sums` are (L,) uint32, one a group, in which bits above the modulus do not count. `entries` are by device.
    `certificates`: what the root says of the helpers in the terms. Updates are refused of devices that are `resting`,
    which have taken part a while ago, and of those that are `left_out` by the word of helpers."""

    def __init__(
        self, terms: Terms, certificates: Sequence[str] = (), resting: Collection[str] = frozenset(),
        left_out: Collection[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.terms, self.certificates, self.resting = terms, list(certificates), resting
        self.left_out = frozenset(left_out)
        self.sums: list[Ring] = [np.zeros(terms.length, np.uint32) for _ in range(terms.groups)]
        self.entries: dict[str, Entry] = {}
        self._keeps = terms.most * terms.packed_bytes <= KEPT_BYTES
        self._kept: dict[str, bytes] = {}

    @property
    def moving_clip(self) -> float | None:
        """The clip, if it is this round's alone; None if it is fixed."""
        return self.terms.clip if self.terms.votes.copies else None

    @property
    def is_full(self) -> bool:
        """Whether the sum may have no further update."""
        return len(self.entries) >= self.terms.most

    @property
    def is_openable(self) -> bool:
        """Whether a group has as many devices as its sum needs: helpers refuse the set else, and it costs epsilon."""
        sizes = Counter(map(self.terms.group_of, self.entries))
        return max(sizes.values(), default=0) >= self.terms.least

    def add(self, device: str, payload: memoryview, public: bytes) -> None:
        """Add the masked vector of a device with this public key; ProtocolError or CodecError, with nothing changed. A
        helper refuses a set with one wrong signature, so each is verified here."""
        found = read(payload, self.terms)
        if device in self.resting:
            apart = self.terms.noise.separation
            raise ProtocolError(f"this device has taken part less than {apart} rounds ago: rejected", "round")
        if device in self.left_out:  # which a draw has asked: it asks any device
            raise ProtocolError("a helper's roster does not have the device as ours has: rejected", "roster")
        if device in self.entries or self.is_full:
            raise ProtocolError(f"there is no room for more than {self.terms.most} masked updates: rejected", "room")
        if not found.is_signed(public):
            raise ProtocolError("masked update that its device has not signed for these terms: rejected", "signature")
        ring.add(self.sums[self.terms.group_of(device)], found.packed, self.terms.bits)
        self.entries[device] = Entry(device, found.packed_sha256, found.signature, found.boxes)
        if self._keeps:
            self._kept[device] = bytes(found.packed)

    def without(self, devices: Collection[str]) -> MaskedSum | None:
        """The sum of all other devices; None if that can't be known any more. This one stays as it is."""
        if not self._kept.keys() >= set(devices):
            return None
        out = MaskedSum(self.terms, self.certificates, self.resting, self.left_out.union(devices))
        out.sums = [each.copy() for each in self.sums]
        for device in devices:
            vector = ring.unpack(self._kept[device], self.terms.length, self.terms.bits)
            out.sums[self.terms.group_of(device)] -= vector
        out.entries = {device: entry for device, entry in self.entries.items() if device not in devices}
        out._kept = {device: packed for device, packed in self._kept.items() if device not in devices}
        return out
