"""Thermometer: the temperature that the device's status shows. The limit on heat has its own reading (governor.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgefl.hosting import sensors

LOOK_S = 60.0


class Thermometer:
    """`celsius` is the newest reading; None: this machine gives none. It is read in a thread, since a driver may hang;
    then that thread stays the last one."""

    def __init__(self, read: Callable[[], float | None] = sensors.celsius) -> None:
        self.celsius: int | None = None
        self._read = read
        self._look_at = 0.0
        self._thread: threading.Thread | None = None

    def look(self, now: float) -> None:
        """Begin another reading, if one is due."""
        if now < self._look_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._look_at = now + LOOK_S
        self._thread = threading.Thread(target=self._run, name="thermometer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        found = self._read()
        self.celsius = round(found) if found is not None and -100 <= found <= 300 else None
