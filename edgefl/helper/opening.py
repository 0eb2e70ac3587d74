"""Opening: what a round costs, its set's signatures, sealed seeds, masks and noise: all that takes long.

A thread of the host's does it. What noise costs is computed there too: dp-accounting takes two seconds to load, and
meanwhile the helper would answer nobody.

A group's masks are added up one after another, so memory is that of one vector and of the answer, whatever the number
of devices. Nothing is told of a group of which one device's part is wrong: with that device left out it would be
another set, and the difference of two opened sets is an update. Where that leaves no group, nothing at all was opened,
and the aggregator may ask for the set without the devices that are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ProtocolError, StoreError
from ..masking import masks, ring
from ..masking.exchange import MAX_NAMED, Entry
from ..masking.sealed import open_sealed, statement_of
from ..privacy.ledger import Ledger
from ..protocol.terms import Terms
from ..trust.ed25519 import verify
from . import spending
from .noise import Drawn
from .refusal import Refusal, Refused, of_devices

Draw = Callable[[Terms, bytes], Drawn]  # noise for a set, named by its digest


class Sums(NamedTuple):
    """What a set's masks and noise add up to: for each group the number of its devices and the packed sum; None for one
    that is not opened. `memory`: of correlated noise, to be durable before the sums leave. `unopened`: the devices
    whose sealed seeds can't be opened, in order, at most MAX_NAMED; `fault` says in words what is wrong.
    `ledger`: with this round in it."""

    groups: tuple[tuple[int, bytes] | None, ...]
    memory: bytes | None = None
    unopened: tuple[str, ...] = ()
    fault: str = ""
    ledger: Ledger | None = None


class Signed(NamedTuple):
    """A device of the set, with the key that the roster has for it."""

    entry: Entry
    public: bytes


@dataclass(frozen=True, eq=False)
class Job:
    """A set that may be opened if every device's part is what it should be, and the terms tell what it costs.
    `ledger`: of what was spent before; `root`: the fingerprint of the federation's; `roster`: the serial of the roster
    that has the devices' keys."""

    terms: Terms
    helper: str
    place: int  # of the helper in the terms
    set_digest: bytes
    groups: tuple[tuple[Signed, ...], ...]  # empty: the group is not opened
    box_public: bytes
    box_private: bytes
    root: str
    ledger: Ledger | None
    roster: int

    def run(self, draw: Draw) -> Sums | Refused:
        """The sums; Refused if they would cost more than is told, or if one device's part is wrong, and that leaves no
        group."""
        try:
            ledger = spending.pay(self.ledger, self.terms, self.root, self.set_digest)
            self._check([one for group in self.groups for one in group])
            return self._sums(draw, ledger)
        except Refusal as refusal:
            return refusal.refused

    def _sums(self, draw: Draw, ledger: Ledger | None) -> Sums | Refused:
        """A seed that can't be opened is its device's doing, and takes its whole group out: else one hostile device
        could stop all rounds. Groups are disjoint, so no two opened ones differ by a device."""
        faults: dict[str, str] = {}  # device -> why its seed can't be opened
        sums = [self._sum(group, draw, faults) if group else None for group in self.groups]
        unopened, fault = tuple(sorted(faults)[:MAX_NAMED]), _in_words(faults)
        if faults and not any(sums):
            return Refused("box", fault, unopened)
        memory = next((one[1] for one in sums if one is not None), None)  # correlated noise has one group
        return Sums(tuple(None if one is None else one[0] for one in sums), memory, unopened, fault, ledger)

    def _check(self, signed: Sequence[Signed]) -> None:
        """Refusal, which names all devices that have signed something else, or with a key that is not the roster's."""
        for entry, _ in signed:
            if len(entry.boxes) != len(self.terms.helpers):
                raise Refusal(
                    "box", f"{entry.device} has {len(entry.boxes)} sealed seeds, for {len(self.terms.helpers)} helpers"
                )
        if unsigned := [one.entry.device for one in signed if not self._is_signed(one)]:
            text = "by the key in our roster, has not signed this vector for these terms: was it enrolled anew?"
            raise of_devices("signature", unsigned, text)

    def _is_signed(self, one: Signed) -> bool:
        entry = one.entry
        said = statement_of(self.terms.digest, entry.packed_sha256, entry.boxes_sha256)
        return verify(one.public, said, entry.signature)

    def _sum(
        self, group: tuple[Signed, ...], draw: Draw, faults: dict[str, str]
    ) -> tuple[tuple[int, bytes], bytes | None] | None:
        """A group's number and sum, and the memory of its noise; None if it has `faults`. All of these are looked
        for: a helper that named one at a time would cost as many rounds as there are."""
        terms, total, memory = self.terms, np.zeros(self.terms.length, np.uint32), None
        before = len(faults)
        for one in group:
            try:
                seed = self._seed(one.entry)
            except ProtocolError as error:
                faults[one.entry.device] = str(error).rpartition(": ")[0]
            else:
                masks.add(total, seed, terms.digest, self.helper, one.entry.device)
        if len(faults) > before:
            return None
        if terms.noise.kind != "none":
            noise, memory = self._noise(draw)
            noise[terms.at_checks] = 0  # the ones are no secret, and have to add up
            total += (noise & 0xFFFFFFFF).astype(np.uint32)
        return (len(group), ring.pack(total, terms.bits)), memory

    def _noise(self, draw: Draw) -> Drawn:
        try:
            return draw(self.terms, self.set_digest)
        except StoreError as error:
            raise Refusal("noise", str(error)) from None

    def _seed(self, entry: Entry) -> bytes:
        return open_sealed(entry.boxes[self.place], self.terms.digest, entry.device, self.box_public, self.box_private)


def _in_words(faults: dict[str, str]) -> str:
    """What is wrong with these devices' sealed seeds, in words; "" of none."""
    if not faults:
        return ""
    first, *more = sorted(faults)
    others = f", and those of {len(more)} more, such as {more[0]}" if more else ""
    return f"{first}: {faults[first]}{others}"
