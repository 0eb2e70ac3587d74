"""Liveness: when to ask the broker for a sign of life, and when to give a connection up. No clock, no socket.

A sign of life is any byte that is received, and any byte that the peer's kernel acknowledges while more are waiting: a
link that is slow but flows is never cut, in whichever direction it flows. That the kernel of a frozen broker accepts a
packet of two bytes, and no more, is no sign of life.

A broker that is silent for `ASK` keep-alives is asked (PINGREQ), so it has as long again to answer, however the silence
began. It is given up after `SILENCE` keep-alives, which is also when the broker would give us up (MQTT 5, 3.1.2.10).
"""

from __future__ import annotations

from typing import Literal

from .traffic import Counts

ASK, SILENCE = 0.75, 1.5


class Liveness:
    """Of one connection, which began at `now`."""

    def __init__(self, keepalive_s: float, now: float) -> None:
        self.keepalive_s = keepalive_s
        self._last = Counts()
        self._life = self._heard = self._told = self._asked = now

    def judge(self, counts: Counts, now: float) -> Literal["alive", "ask", "dead"]:
        """What `counts` say now: "ask" if the broker should be sent a PINGREQ, "dead" if the connection is to end."""
        last, self._last = self._last, counts
        if counts.received > last.received:
            self._life = self._heard = now
        if counts.acknowledged > last.acknowledged:
            self._told = now
            if counts.pending:
                self._life = now
        if now - self._life >= SILENCE * self.keepalive_s:
            return "dead"
        due_s = ASK * self.keepalive_s
        if now - self._asked >= due_s and now - min(self._heard, self._told) >= due_s:
            self._asked = now
            return "ask"
        return "alive"
