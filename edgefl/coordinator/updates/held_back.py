"""HeldBack: updates that came when no round could receive them. No I/O. Part of RoundCoordinator.

No round was open; or the open one is asynchronous and has an update of the device already. There is no receipt, so
their devices keep them, and would repeat them by themselves, after longer and longer waits. The aggregator asks for
them as soon as it has opened another round.
"""

from __future__ import annotations

LIMIT = 1000  # devices


class HeldBack:
    """The newest such update of each device, by its round, and when it came: its device took no longer than that."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, float]] = {}
        self._asked: dict[str, tuple[int, float]] = {}  # since the last round opened

    def add(self, device: str, round: int, now: float) -> None:
        """A part of the device's update has come. If too many are known, its device repeats it unasked."""
        newest, _ = self._held.get(device, (round - 1, 0.0))
        if round > newest and (device in self._held or len(self._held) < LIMIT):
            self._held[device] = round, self.came_at(device, round, now)

    def take(self) -> list[tuple[str, int]]:
        """Device and round of all of them, which are asked for now."""
        self._asked, self._held = self._held, {}
        return [(device, round) for device, (round, _) in self._asked.items()]

    def came_at(self, device: str, round: int, now: float) -> float:
        """When the device's update of this round came first, if it comes again `now`."""
        known, at = self._asked.get(device, (0, now))
        return at if known == round else now
