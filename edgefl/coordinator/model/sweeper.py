"""Sweeper: clears retained messages that the aggregator sees where none should be. No I/O. Part of RoundCoordinator.

Devices retain nothing below `d/{id}/u/`, nothing at all belongs on a topic that names no device, and a revoked device
has no status any more. A broker keeps such a message without end, and delivers it again at each connection. It is
cleared once the federation is ours. At most `MOST` topics are remembered, and `AT_ONCE` are cleared at a time, the next
ones when the broker has acknowledged them. If there were more, a new subscription brings the rest.

A cleared topic still takes about 1 kB in mosquitto, until that is restarted.
"""

from __future__ import annotations

from itertools import islice

from ...machine import Note, Publish, Subscribe
from ..events import Action

AT_ONCE = 50
MOST = 1000


class Sweeper:
    """`subscription` is the filter that brings such messages."""

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self._due: dict[str, None] = {}
        self._batch: list[str] = []  # the topics whose clears are under way
        self._more = False  # than are remembered
        self._denied = False  # by the broker, on this connection
        self._token = 0  # of the batch, below 0: the announcer's are above

    def connected(self) -> None:
        """Nobody knows which clears of the last connection have arrived: they are repeated."""
        self._batch, self._denied = [], False

    def see(self, topic: str) -> list[Action]:
        """There is a retained message on `topic`."""
        if topic in self._due:
            return []
        if len(self._due) >= MOST:
            self._more = True
            return []
        self._due[topic] = None
        return [Note("warning", f"a message is retained on {topic[:120]!r}, where none should be: cleared", "cleared")]

    def clear(self) -> list[Action]:
        """The federation is ours: the next clears, unless some are under way."""
        if self._batch or self._denied or not self._due:
            return []
        self._token -= 1
        self._batch = list(islice(self._due, AT_ONCE))
        *others, last = self._batch
        clears = [Publish(topic, b"", retain=True) for topic in others]
        return [*clears, Publish(last, b"", retain=True, token=self._token)]

    def on_sent(self, token: int, ok: bool) -> list[Action]:
        """The broker has acknowledged or refused a batch: brokers answer in order, so the last one's answer stands for
        all. What it refuses is tried again on the next connection."""
        if token != self._token or not self._batch:
            return []
        batch, self._batch, self._denied = self._batch, [], not ok
        if not ok:
            return []
        for topic in batch:
            del self._due[topic]
        if self._due or not self._more:
            return self.clear()
        self._more = False
        return [Subscribe((self._subscription,))]
