"""Unheard: names devices in the log that should be there, and have never been heard.

A device with a wrong address, password, certificate or federation can't tell anybody but its own log. The aggregator
knows of it only by its enrolment or, where there are no keys, by `[rounds] expect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgefl.protocol.fleet import ABSENT, DeviceRow

FIRST_S = 30.0  # after the start, when devices that are there have been heard
AGAIN_S = 6 * 3600.0
EVERY_S = 15.0  # between two looks, which go through all devices
NAMED = 12
CHECK = "edgefl-agent --check on the device says what keeps it away"


class Unheard:
    """`look` is called now and then; `rows` gives all devices."""

    def __init__(self) -> None:
        self._look_at: float | None = None
        self._said: tuple[object, float] = (None, 0.0)

    def look(self, now: float, rows: Callable[[], Iterable[DeviceRow]], expect: int) -> str:
        """The warning, if one is due; "": none is. `expect` devices are in the fleet, 0: unknown."""
        if self._look_at is None:
            self._look_at = now + FIRST_S
        if now < self._look_at:
            return ""
        self._look_at = now + EVERY_S
        states = {row.id: row.state for row in rows()}
        missing = [device for device, state in states.items() if state == ABSENT]
        what: object = frozenset(missing) or max(0, expect - len(states))
        before, at = self._said
        if not what or (what == before and now < at + AGAIN_S):
            return ""
        self._said = what, now
        if not missing:
            return f"{len(states)} of {expect} expected devices have ever announced themselves: on the others, {CHECK}"
        names = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
        return f"enrolled, and never heard: {names}: start their agents; {CHECK}; or revoke them"
