"""Slots: what a round leaves on its device for the rounds after it, by name.

    residual   what the codec dropped of the last update (codecs/feedback.py)
    control    what a local rule knows of this device's gradient (SCAFFOLD, FedDyn)
    memory     the update of this device that the aggregator still counts (MIFA)
    personal   what never leaves the device: personal layers, a personal model

An update comes with all slots that the device is to have once it is in the model; they are *new* until then. If the
update is applied, they replace the *current* ones, of every name. If it is lost, they are dropped with it, and the
current ones stay. So a device goes on from what the aggregator has counted, wherever either of them is killed.

A residual belongs to one manifest, and expires: it was due on an older model. The others belong to one run, and stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from msgspec import Struct

from .._core import crc32c
from ..codecs.feedback import FEEDBACK_ROUNDS
from ..protocol.manifest import Manifest


class Kept(NamedTuple):
    """How long a slot is kept: for `rounds` (None: it never expires), and as long as its `owner` is the same, the `id`
    of the manifest or its `run`. One that `outlasts` damage stays even if nobody knows whether the last update counted.
    """

    owner: str
    rounds: int | None = None
    outlasts: bool = False


KEPT = {
    "residual": Kept("id", FEEDBACK_ROUNDS),
    "control": Kept("run"),
    "memory": Kept("run"),
    "personal": Kept("run", outlasts=True),
}
OUTLASTING = tuple(name for name, kept in KEPT.items() if kept.outlasts)

Why = Literal["", "damaged", "too old, or of another run"]


class Slot(Struct, frozen=True):
    """A slot as it is stored, from the update of `round`; `crc` is the CRC-32C of `blob`."""

    owner: str
    round: int
    blob: bytes
    crc: int

    @classmethod
    def of(cls, name: str, manifest: Manifest, round: int, blob: bytes) -> Slot:
        """The slot `name`, one of KEPT, that the update of `round` leaves."""
        return cls(getattr(manifest, KEPT[name].owner), round, blob, crc32c(blob))

    def unusable(self, name: str, manifest: Manifest, round: int) -> Why:
        """Why the bytes don't serve `round`; "" if they do."""
        kept = KEPT[name]
        expired = kept.rounds is not None and not 0 < round - self.round <= kept.rounds
        if expired or self.owner != getattr(manifest, kept.owner):
            return "too old, or of another run"
        return "" if crc32c(self.blob) == self.crc else "damaged"


LoadSlot = Callable[[str], Slot | None]  # the current slot of that name, unchecked


def no_slots(name: str) -> Slot | None:
    """A LoadSlot for a device that has none."""
    return None
