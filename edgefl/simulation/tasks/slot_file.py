"""SlotFile: what all simulated devices keep from round to round, in memory as far as there is room, else in one file.

Strategies with state leave a vector of the model's size on every device that a round has asked: control variates,
memory, personal params, residuals. A fleet of thousands would need gigabytes. The file has no name, is as long as all
slots that were ever held at the same time, and goes with its process.
"""

from __future__ import annotations

from typing import cast

from msgspec.structs import replace

from ...device.slots import Slot
from .spool import Kept, Spool

PAGE = 4096
ROOM = 128 * 2**20  # bytes in memory


class SlotFile:
    """`room`: the bytes that stay in memory. One thread adds slots; any thread reads them."""

    def __init__(self, room: int | None = None) -> None:
        self._spool = Spool(ROOM if room is None else room, PAGE)

    def keep(self, slot: Slot) -> Slot:
        """The slot, with its bytes elsewhere: `whole` has them."""
        return replace(slot, blob=cast(bytes, self._spool.keep(slot.blob)))

    def close(self) -> None:
        self._spool.close()


def whole(slot: Slot) -> Slot:
    """The slot with its bytes, wherever they are."""
    kept: object = slot.blob
    return replace(slot, blob=bytes(kept[:])) if isinstance(kept, Kept) else slot
