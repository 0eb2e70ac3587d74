"""Refused: how many messages were refused, by device and code, since the last round was over. No I/O.

Part of Admission. Names that anybody can make up fill neither a record nor a log: each has room for so many.
"""

from __future__ import annotations

from collections import Counter

MOST = 1000  # devices in a record; what others send is counted as from "?"
NAMED = 100  # devices with log lines of their own


class Refused:
    """What a record says of refused messages."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._named: set[str] = set()

    def add(self, device: str, code: str) -> None:
        if device not in self._counts and len(self._counts) >= MOST:
            device = "?"
        self._counts.setdefault(device, Counter())[code] += 1

    def take(self) -> dict[str, dict[str, int]]:
        """Device -> code -> number of messages, since the last call."""
        counts, self._counts = self._counts, {}
        return {device: dict(sorted(codes.items())) for device, codes in sorted(counts.items())}

    def forget(self, device: str) -> None:
        self._counts.pop(device, None)

    def kind(self, what: str, device: str) -> str:
        """The kind of a log line, of which hosting/repeats.py writes one a minute: the device's own, or one for all
        other devices."""
        if len(self._named) < NAMED:
            self._named.add(device)
        return f"{what} {device}" if device in self._named else what
