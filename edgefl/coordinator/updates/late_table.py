"""LateTable: the late updates that the host keeps until a commit contains them, and whether there is room for more.

A late update that has its receipt is never dropped (I06), so whether it may be kept is decided before. One update of a
device and model version is enough: where rounds are abandoned again and again, a device makes one from the same model
in each of them. Together they take at most `LATE_BYTES` on disk, or one update if that is larger. No I/O. Part of
RoundCoordinator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..events import LateUpdate

LATE_BYTES = 64 * 2**20


class LateTable:
    """What is kept, by device and version: the update's round and its length. `bytes` is the sum of lengths."""

    def __init__(self) -> None:
        self.bytes = 0
        self._kept: dict[tuple[str, int], dict[int, int]] = {}

    def refuses(self, update: LateUpdate) -> str:
        """Why this update is not kept; "" if it may be."""
        rounds = self._kept.get((update.device, update.version), {})
        if update.round in rounds:
            return ""
        if rounds:
            return f"the device's update of round {max(rounds)} from the same model waits for the next commit"
        if self.bytes and self.bytes + len(update.blob) > LATE_BYTES:
            return f"late updates of {self.bytes / 1e6:.0f} MB wait for the next commit: there is no room for more"
        return ""

    def keep(self, update: LateUpdate) -> None:
        rounds = self._kept.setdefault((update.device, update.version), {})
        self.bytes += len(update.blob) - rounds.get(update.round, 0)
        rounds[update.round] = len(update.blob)

    def keeps(self, device: str, round: int) -> bool:
        """Whether the host keeps the device's update of this round."""
        return any(name == device and round in rounds for (name, _), rounds in self._kept.items())

    def reload(self, updates: Iterable[LateUpdate]) -> Iterator[LateUpdate]:
        """Go through all that the host keeps: what is known from before is replaced by it."""
        self.bytes, self._kept = 0, {}
        for update in updates:
            self.keep(update)
            yield update

    def drop(self, keys: Iterable[tuple[str, int]]) -> None:
        """The host drops these, by device and round."""
        gone = set(keys)
        for (device, version), rounds in list(self._kept.items()) if gone else ():
            for round in [number for number in rounds if (device, number) in gone]:
                self.bytes -= rounds.pop(round)
            if not rounds:
                del self._kept[device, version]
