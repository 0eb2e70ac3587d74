"""HeldBack: updates that came when no round could receive them. No I/O. Part of RoundCoordinator.

No round was open; or the open one is asynchronous and has an update of the device already. There is no receipt, so
their devices keep them, and would repeat them by themselves, after longer and longer waits. The aggregator asks for
them as soon as it has opened another round.
"""

from __future__ import annotations

LIMIT = 1000  # devices


class HeldBack:
    """The newest such update of each device, by its round."""

    def __init__(self) -> None:
        self._rounds: dict[str, int] = {}

    def add(self, device: str, round: int) -> None:
        """A part of the device's update has come. If too many are known, its device repeats it unasked."""
        if device in self._rounds or len(self._rounds) < LIMIT:
            self._rounds[device] = max(round, self._rounds.get(device, 0))

    def take(self) -> list[tuple[str, int]]:
        """Device and round of all of them, which are asked for now."""
        held, self._rounds = list(self._rounds.items()), {}
        return held
