"""Window: what other threads of the aggregator may see of the fleet: copies, made on the aggregator's own thread.

A copy is made when somebody has asked for one lately, at most once a second, and less often in large fleets: for 2,000
devices it takes about 10 ms.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.protocol.fleet import DeviceRow, Summary

EVERY_S = 1.0
DEVICES_A_SECOND = 4000
WANTED_S = 30.0  # after somebody has asked


class View(NamedTuple):
    """The federation and all its devices, by name, at one moment. Nobody changes it."""

    summary: Summary
    rows: list[DeviceRow]


class Window:
    """`look` may be called on any thread; `refresh` on the aggregator's alone, whenever it has done something."""

    def __init__(self, machine: RoundCoordinator) -> None:
        self._machine = machine
        self._view: View | None = None
        self._made_at = 0.0
        self._asked = threading.Event()
        self._wanted_until = 0.0
        self._news = threading.Condition()

    def look(self, wait_s: float = 5.0) -> View | None:
        """The newest view, at most about a second old, or a second for each 4,000 devices; None if the
        aggregator made none within `wait_s`."""
        self._asked.set()
        with self._news:
            self._news.wait_for(lambda: self._view is not None, wait_s)
            return self._view

    def refresh(self, now: float) -> None:
        """Make a new copy, if one is wanted and due."""
        if self._asked.is_set():
            self._asked.clear()
            self._wanted_until = now + WANTED_S
        wanted = now < self._wanted_until
        if wanted and self._view is not None and now < self._made_at + self._every_s(self._view):
            return
        if not wanted and self._view is None:
            return
        with self._news:
            self._made_at = now
            self._view = View(self._machine.summary(now), self._machine.rows()) if wanted else None
            self._news.notify_all()

    @staticmethod
    def _every_s(view: View) -> float:
        return max(EVERY_S, len(view.rows) / DEVICES_A_SECOND)
