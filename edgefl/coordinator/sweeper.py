"""Sweeper: takes off the MQTT broker what no round needs any more. No I/O. Part of Announcer.

An aggregator that dies, or loses its connection, between a commit and the clearing of the versions that it made
superfluous would leave their parts on the broker for ever. So a clear is repeated at each connection until the broker
has acknowledged it, and a start clears what the versions before its own may have left.

That may be tens of thousands, which receipts and rounds must not wait for: a few are handed out at a time, the next
ones when the broker has acknowledged those.
"""

from __future__ import annotations

from dataclasses import replace

from ..machine import Publish
from .events import Action

AT_ONCE = 50


class Sweeper:
    """`_left` is to be cleared, the first ones first: `_out` of them have been handed out on this connection."""

    def __init__(self) -> None:
        self._left: list[Publish] = []
        self._out = 0
        self._token = 0

    def add(self, clears: list[Publish]) -> list[Action]:
        """Clear these, after those before."""
        self._left += clears
        return self._next()

    def again(self) -> list[Action]:
        """There is a new connection: what the last one took is unknown."""
        self._out = 0
        return self._next()

    def on_sent(self, token: int, ok: bool) -> list[Action]:
        """The broker has taken what was handed out, or has not: then it is repeated before what comes next."""
        if token != self._token:
            return []
        taken, self._out = self._out, 0
        if not ok:
            return []
        del self._left[:taken]
        return self._next()

    def _next(self) -> list[Action]:
        """The broker takes messages in order, so the last one speaks for all."""
        if self._out or not self._left:
            return []
        clears = self._left[:AT_ONCE]
        self._out = len(clears)
        self._token += 1
        return [*clears[:-1], replace(clears[-1], token=self._token)]
