"""Opening: one set's signatures, sealed seeds, masks and noise. All that takes long, for a thread of the host's.

A group's masks are added up one after another, so memory is that of one vector and of the answer, whatever the number
of devices. Nothing is told of a set of which one device's part is wrong: with that device left out it would be another
set, and the difference of two opened sets is an update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgeFLError, ProtocolError
from ..masking import masks, ring
from ..masking.exchange import Entry
from ..masking.sealed import open_sealed, statement_of
from ..protocol.terms import Terms
from ..trust.ed25519 import verify

Draw = Callable[[float, int], NDArray[np.int64]]  # (sigma, n): (n,) of independent noise, from fresh randomness


class Refused(NamedTuple):
    """Why a set is not opened: one of asked.REASONS, and in words."""

    code: str
    text: str


class Sums(NamedTuple):
    """What a set's masks and noise add up to: for each group the number of its devices and the packed sum; None for one
    that is not opened."""

    groups: tuple[tuple[int, bytes] | None, ...]


class Signed(NamedTuple):
    """A device of the set, with the key that the roster has for it."""

    entry: Entry
    public: bytes


@dataclass(frozen=True, eq=False)
class Job:
    """A set that may be opened if every device's part is what it should be."""

    terms: Terms
    helper: str
    place: int  # of the helper in the terms
    set_digest: bytes
    groups: tuple[tuple[Signed, ...], ...]  # empty: the group is not opened
    box_public: bytes
    box_private: bytes

    def run(self, draw: Draw) -> Sums | Refused:
        """The sums; Refused if one device's part is wrong."""
        try:
            for group in self.groups:
                for one in group:
                    self._check(one)
            return Sums(tuple(self._sum(group, draw) if group else None for group in self.groups))
        except _Fault as fault:
            return Refused(fault.code, str(fault))

    def _check(self, one: Signed) -> None:
        entry = one.entry
        if len(entry.boxes) != len(self.terms.helpers):
            raise _Fault(
                "box", f"{entry.device} has {len(entry.boxes)} sealed seeds, for {len(self.terms.helpers)} helpers"
            )
        said = statement_of(self.terms.digest, entry.packed_sha256, entry.boxes_sha256)
        if not verify(one.public, said, entry.signature):
            raise _Fault("signature", f"{entry.device} has not signed this vector for these terms")

    def _sum(self, group: tuple[Signed, ...], draw: Draw) -> tuple[int, bytes]:
        terms, total = self.terms, np.zeros(self.terms.length, np.uint32)
        for one in group:
            masks.add(total, self._seed(one.entry), terms.digest, self.helper, one.entry.device)
        if terms.noise.kind != "none":
            noise = draw(terms.noise.sigma, terms.length)
            noise[terms.at_checks] = 0  # the ones are no secret, and have to add up
            total += (noise & 0xFFFFFFFF).astype(np.uint32)
        return len(group), ring.pack(total, terms.bits)

    def _seed(self, entry: Entry) -> bytes:
        try:
            return open_sealed(
                entry.boxes[self.place], self.terms.digest, entry.device, self.box_public, self.box_private
            )
        except ProtocolError as error:
            raise _Fault("box", f"{entry.device}: {str(error).rpartition(': ')[0]}") from None


class _Fault(EdgeFLError):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
