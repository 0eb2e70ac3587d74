"""UpdateReport: how a device sends its update, in parts, until the aggregator's receipt.

A window of parts is in flight; a PUBACK (the broker's acknowledgement) only moves the window, it proves no
delivery. Without a receipt everything is sent again, ever more patiently. Part of DeviceSession; no I/O.
"""

from __future__ import annotations

import random
from collections import deque

from .protocol.machine import Note, Publish
from .protocol.messages import Round
from .protocol.parts import Splitter
from .protocol.topics import Topics

WINDOW = 10  # parts in flight: AWS IoT Core and HiveMQ take no more
PATIENCE_S = 30.0
LONGEST_WAIT_S = 600.0


class UpdateReport:
    """The sending of one update, that of round `number`, while `round` is the newest.

    `counted` is set by the receipt; until then `retry_at` says when to send again.
    """

    def __init__(
        self, topics: Topics, device: str, round: Round, number: int, splitter: Splitter, rng: random.Random
    ) -> None:
        self.round, self.number = round, number
        self.counted = False
        self.retry_at = 0.0
        self._topics = topics
        self._device = device
        self._splitter = splitter
        self._rng = rng
        self._unsent = deque(range(splitter.parts))
        self._in_flight: dict[int, int] = {}  # token -> part
        self._tokens = 0
        self._tries = 0

    def send(self, now: float) -> list[object]:
        """As many parts as the window takes."""
        out: list[object] = []
        while self._unsent and len(self._in_flight) < WINDOW:
            part = self._unsent.popleft()
            self._tokens += 1
            self._in_flight[self._tokens] = part
            topic = self._topics.update(self._device, self.number, part)
            out.append(Publish(topic, self._splitter.part(part), token=self._tokens))
        if out:  # a connection that comes and goes must not put the next try off for ever
            wait = min(PATIENCE_S * 2**self._tries, LONGEST_WAIT_S)
            self.retry_at = now + wait * self._rng.uniform(0.5, 1.0)
        return out

    def on_sent(self, token: int, ok: bool, now: float) -> list[object]:
        """The broker acknowledged a part, or refused it: then not again at once, but when patience ends."""
        part = self._in_flight.pop(token, None)
        if part is None:
            return []
        if ok:
            return self.send(now)
        self._unsent.append(part)
        return []

    def on_missing(self, parts: list[int], now: float) -> list[object]:
        """The aggregator lacks these."""
        under_way = {*self._unsent, *self._in_flight.values()}
        self._unsent.extend(p for p in parts if p < self._splitter.parts and p not in under_way)
        return self.send(now)

    def on_disconnected(self) -> None:
        """What was in flight is unknown: it goes first when the connection is back."""
        self._unsent.extendleft(sorted(self._in_flight.values(), reverse=True))
        self._in_flight.clear()

    def probe(self, now: float) -> list[object]:
        """The round was announced anew, by a broker or an aggregator that may have lost all that was sent: its last
        part again, for which there is a receipt, or a request for the others."""
        if self.counted or self._unsent or self._in_flight:
            return []
        self._unsent.append(self._splitter.parts - 1)
        return self.send(now)

    def send_all(self, now: float) -> list[object]:
        """Patience has ended, or the aggregator has reopened the round: once more from the start."""
        self.counted = False
        self._tries = min(self._tries + 1, 10)
        self._in_flight.clear()
        self._unsent = deque(range(self._splitter.parts))
        note = Note("info", f"round {self.number}: no receipt for the update yet, sent again")
        return [note, *self.send(now)]
