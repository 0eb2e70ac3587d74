"""Refusals: one warning for each kind of publish that the broker refuses, instead of one for each message. No I/O.

MQTT 5 tells of a refused publish in its acknowledgement. With MQTT 3.1.1 a broker drops the message and says nothing.
"""

from __future__ import annotations

import re

AGAIN_S = 600.0
MAX_KINDS = 32
NOT_AUTHORIZED = "Not authorized"
_VARIABLE = re.compile(r"/d/[^/]+(?=/)|/[0-9]+(?=/|\Z)")  # in a topic: the device, and numbers


class Refusals:
    """Counts refused publishes by kind of topic. `user` says which user name the broker's ACL expects here."""

    def __init__(self) -> None:
        self.user = ""
        self._kinds: dict[tuple[str, str], tuple[int, float]] = {}  # kind -> how many, when the next warning is due

    def line(self, topic: str, reason: str, now: float) -> str | None:
        """Count a refused publish; the warning, if one is due: at the first of a kind, then every ten minutes."""
        kind = (_VARIABLE.sub("/+", topic), reason)
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            return None
        count, due = self._kinds.get(kind, (0, now))
        self._kinds[kind] = (count + 1, due if now < due else now + AGAIN_S)
        if now < due:
            return None
        times = f", {count + 1} times so far" if count else ""
        check = "check the broker's limits, and its log"
        if reason == NOT_AUTHORIZED:
            check = f"let this client write there in the broker's ACL{self.user and f'; {self.user}'}"
        return f"the broker refuses our publish on {topic!r} ({reason}{times}): {check}"
