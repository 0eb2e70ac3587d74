"""Disk: what a simulated device keeps over a restart. A test holds the agent's store, edgefl_agent/store.py, to it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from ...device.events import Outbox
from ...device.seen import Seen
from ...device.slots import OUTLASTING, Slot


class Disk:
    """The newest update with its new slots, and the current slots: a residual has 2 P bytes."""

    def __init__(self) -> None:
        self.outbox: Outbox | None = None
        self.slots: dict[str, Slot] = {}
        self.in_model = 0  # the stamp of the data that are in a model
        self.base = b""  # KeepBase
        self.seen: Seen | None = None
        self._pending: dict[str, Slot] = {}

    def save(self, outbox: Outbox, slots: Mapping[str, Slot]) -> None:
        """SaveUpdate. A current slot is dropped if the new one belongs to something else."""
        self.outbox, self._pending = outbox, dict(slots)
        for name, slot in slots.items():
            if name in self.slots and self.slots[name].owner != slot.owner:
                del self.slots[name]

    def mark_counted(self, attempt: int) -> None:
        """MarkCounted."""
        assert self.outbox is not None
        self.outbox = replace(self.outbox, counted=attempt)

    def drop(self, applied: bool) -> None:
        """DropUpdate."""
        if applied and self.outbox is not None:
            self.slots = self._pending
            self.in_model = self.outbox.stamp
        self.outbox, self._pending = None, {}

    def held(self) -> tuple[Mapping[str, Slot], Mapping[str, Slot]]:
        """The current slots and the new ones."""
        return self.slots, self._pending

    def put_back(self, current: Mapping[str, Slot], new: Mapping[str, Slot]) -> None:
        """Hold these slots, which were held before, in the place of empty ones (journal.py)."""
        self.slots, self._pending = dict(current), dict(new)

    def damaged(self) -> None:
        """The update can't be read, so nobody knows whether it counted."""
        self.outbox, self._pending = None, {}
        self.slots = {name: slot for name, slot in self.slots.items() if name in OUTLASTING}
