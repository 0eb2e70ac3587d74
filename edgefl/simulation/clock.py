"""A virtual clock: callbacks in the order of their time, then of their scheduling. No waiting, no threads."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable


class VirtualClock:
    """`now` is in seconds from the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self._times: list[float] = []  # a heap of those at which something happens, each once
        self._due: dict[float, deque[Callable[[], None]]] = {}  # many messages arrive at the same time

    def __len__(self) -> int:
        """How many callbacks wait."""
        return sum(map(len, self._due.values()))

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call `callback` in `delay_s` seconds."""
        self.at(self.now + delay_s, callback)

    def at(self, time: float, callback: Callable[[], None]) -> None:
        """Call `callback` at that time; at once if it is past."""
        if time < self.now:
            time = self.now
        due = self._due.get(time)
        if due is None:
            due = self._due[time] = deque()
            heapq.heappush(self._times, time)
        due.append(callback)

    def advance(self) -> bool:
        """Jump to the next callback and call it; False if no callback is left."""
        if not self._times:
            return False
        self.now = self._times[0]
        due = self._due[self.now]
        callback = due.popleft()
        if not due:  # what the callback schedules for now makes another entry
            del self._due[self.now]
            heapq.heappop(self._times)
        callback()
        return True
