"""Opening: one set's signatures, sealed seeds, masks and noise. All that takes long, for a thread of the host's.

A group's masks are added up one after another, so memory is that of one vector and of the answer, whatever the number
of devices. Nothing is told of a group of which one device's part is wrong: with that device left out it would be
another set, and the difference of two opened sets is an update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import EdgeFLError, ProtocolError, StoreError
from ..masking import masks, ring
from ..masking.exchange import Entry
from ..masking.sealed import open_sealed, statement_of
from ..protocol.terms import Terms
from ..trust.ed25519 import verify
from .noise import Drawn

Draw = Callable[[Terms, bytes], Drawn]  # noise for a set, named by its digest


class Refused(NamedTuple):
    """Why a set is not opened: one of asked.REASONS, and in words."""

    code: str
    text: str


class Sums(NamedTuple):
    """What a set's masks and noise add up to: for each group the number of its devices and the packed sum; None for one
    that is not opened. `memory`: of correlated noise, to be durable before the sums leave. `faults`: for the log, why
    groups are left out that are large enough."""

    groups: tuple[tuple[int, bytes] | None, ...]
    memory: bytes | None = None
    faults: tuple[str, ...] = ()


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
        """The sums; Refused if one device's part is wrong, and that leaves no group."""
        try:
            for group in self.groups:
                for one in group:
                    self._check(one)
            return self._sums(draw)
        except _Fault as fault:
            return Refused(fault.code, str(fault))

    def _sums(self, draw: Draw) -> Sums:
        """A seed that can't be opened is its device's doing, and takes its whole group out: else one hostile device
        could stop all rounds. Groups are disjoint, so no two opened ones differ by a device."""
        sums: list[tuple[tuple[int, bytes], bytes | None] | None] = []
        faults: list[_Fault] = []
        for group in self.groups:
            try:
                sums.append(self._sum(group, draw) if group else None)
            except _Fault as fault:
                if fault.code != "box":
                    raise
                sums.append(None)
                faults.append(fault)
        if faults and not any(sums):
            raise faults[0]
        memory = next((one[1] for one in sums if one is not None), None)  # correlated noise has one group
        return Sums(tuple(None if one is None else one[0] for one in sums), memory, tuple(map(str, faults)))

    def _check(self, one: Signed) -> None:
        entry = one.entry
        if len(entry.boxes) != len(self.terms.helpers):
            raise _Fault(
                "box", f"{entry.device} has {len(entry.boxes)} sealed seeds, for {len(self.terms.helpers)} helpers"
            )
        said = statement_of(self.terms.digest, entry.packed_sha256, entry.boxes_sha256)
        if not verify(one.public, said, entry.signature):
            raise _Fault("signature", f"{entry.device} has not signed this vector for these terms")

    def _sum(self, group: tuple[Signed, ...], draw: Draw) -> tuple[tuple[int, bytes], bytes | None]:
        terms, total, memory = self.terms, np.zeros(self.terms.length, np.uint32), None
        for one in group:
            masks.add(total, self._seed(one.entry), terms.digest, self.helper, one.entry.device)
        if terms.noise.kind != "none":
            noise, memory = self._noise(draw)
            noise[terms.at_checks] = 0  # the ones are no secret, and have to add up
            total += (noise & 0xFFFFFFFF).astype(np.uint32)
        return (len(group), ring.pack(total, terms.bits)), memory

    def _noise(self, draw: Draw) -> Drawn:
        try:
            return draw(self.terms, self.set_digest)
        except StoreError as error:
            raise _Fault("noise", str(error)) from None

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
