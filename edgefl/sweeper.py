"""Sweeper: takes off the MQTT broker what no round needs any more. No I/O. Part of Announcer.

An aggregator that dies, or loses its connection, between a commit and the clearing of the versions that it made
superfluous would leave their parts on the broker for ever. So a clear is repeated at each connection until the broker
has acknowledged it, and a start clears what the versions before its own may have left.
"""

from __future__ import annotations

from dataclasses import replace

from .protocol.machine import Publish


class Sweeper:
    """`left` is cleared at the next connection, unless the broker has acknowledged the last of it by then."""

    def __init__(self) -> None:
        self._left: list[Publish] = []
        self._token = 0

    def add(self, clears: list[Publish]) -> list[object]:
        """Clear these."""
        self._left += clears
        return self._send(clears)

    def again(self) -> list[object]:
        """There is a new connection: what the last one took is unknown."""
        return self._send(self._left)

    def _send(self, clears: list[Publish]) -> list[object]:
        """The broker takes messages in order, so the last one speaks for all."""
        if not clears:
            return []
        self._token += 1
        return [*clears[:-1], replace(clears[-1], token=self._token)]

    def on_sent(self, token: int, ok: bool) -> None:
        if ok and token == self._token:
            self._left = []
