"""A virtual clock: callbacks in the order of their time, then of their scheduling. No waiting, no threads."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class VirtualClock:
    """`now` is in seconds from the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call `callback` in `delay_s` seconds."""
        self.at(self.now + delay_s, callback)

    def at(self, time: float, callback: Callable[[], None]) -> None:
        """Call `callback` at that time; at once if it is past."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(self.now, time), self._sequence, callback))

    def advance(self) -> bool:
        """Jump to the next callback and call it; False if no callback is left."""
        if not self._heap:
            return False
        self.now, _, callback = heapq.heappop(self._heap)
        callback()
        return True
