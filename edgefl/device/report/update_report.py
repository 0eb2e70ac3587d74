"""UpdateReport: how a device sends its update, in parts, until the aggregator's receipt.

The report begins at a random moment of the round's spread, with the parts that the round lets devices send unasked. At
most a window of parts is in flight. A PUBACK (the broker's acknowledgement) only moves the window: it proves no
delivery. Without a receipt the report begins again, after longer and longer waits. Part of DeviceSession; no I/O.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from ...machine import Note, Publish
from ...protocol.inbox import Receipt
from ...protocol.parts import Splitter
from ...protocol.round import Round
from ...protocol.topics import Topics
from ..events import Action
from ..patience import Patience

WINDOW = 10  # parts in flight: AWS IoT Core and HiveMQ accept no more; fewer on a slow link
PATIENCE_S = 30.0
LONGEST_WAIT_S = 600.0
CROSSED_S = 3.0  # a request may have been made before a part that was acknowledged so recently arrived


class UpdateReport:
    """The report of the update of round `number`, while `round` is the newest. `counted`: there is a receipt."""

    def __init__(
        self, round: Round, number: int, splitter: Splitter, *, topics: Topics, device: str, patience: Patience,
        tokens: Iterator[int], rng: random.Random, asks: bool = False,
    ) -> None:  # fmt: skip
        self._asks = asks  # its first part is all that is of use
        self.round, self.number = round, number
        self.counted = False
        self._retry_at = 0.0
        self._topics = topics
        self._device = device
        self._splitter = splitter
        self._patience = patience
        self._newest: deque[tuple[float, int]] = deque(maxlen=2 * WINDOW)  # parts acknowledged, and when
        self._progress_at = 0.0  # when a part was last sent, or acknowledged
        self._rng = rng
        self._unsent = deque(self._unasked)
        self._begin_at: float | None = None  # drawn when parts can first be sent
        self._held_back = False
        self._in_flight: dict[int, int] = {}  # token -> part
        self._tokens = tokens
        self._tries = 0

    @property
    def _unasked(self) -> range:
        return range(min(self._splitter.parts, 1 if self._asks else self.round.unasked))

    @property
    def wake_at(self) -> float | None:
        """When the report goes on, or begins again; None once there is a receipt."""
        return None if self.counted else self._retry_at

    @property
    def is_late(self) -> bool:
        """Whether the update's own round is over."""
        return self.number != self.round.round

    @property
    def flows(self) -> bool:
        """Whether parts are on their way, so that a report from the start would send them twice."""
        return bool(self._in_flight)

    def is_answered_by(self, receipt: Receipt) -> bool:
        """Whether `receipt` is about this update, by the attempt that has announced the round."""
        return (receipt.round, receipt.attempt) == (self.number, self.round.attempt)

    def follow(self, round: Round, *, asks: bool = False) -> None:
        """`round` is the newest now: the update's own round again, or a later one that accepts the update, or that can
        only say what became of it (`asks`): parts that wait for room in the window are of no use to that."""
        self.round, self._asks = round, asks
        if asks:
            self._unsent = deque(part for part in self._unsent if part == 0)

    def count(self) -> None:
        """The receipt has arrived."""
        self.counted = True

    def send(self, now: float) -> list[Action]:
        """As many parts as the window has room for, once it is this device's turn."""
        if self._begin_at is None:
            self._begin_at = now + (self._rng.uniform(0, self.round.spread_s) if self.round.spread_s else 0.0)
        self._held_back = now < self._begin_at
        if self._held_back:
            self._retry_at = self._begin_at
            return []
        out: list[Action] = []
        window = self._patience.sent_at_once(self._splitter.part_bytes, WINDOW)
        while self._unsent and len(self._in_flight) < window:
            part = self._unsent.popleft()
            token = next(self._tokens)
            self._in_flight[token] = part
            topic = self._topics.update(self._device, self.number, part)
            out.append(Publish(topic, self._splitter.part(part), token=token))
        if out:  # a connection that comes and goes must not postpone the next try each time
            self._wait(now)
        return out

    def _wait(self, now: float) -> None:
        """Something has been sent, or has arrived at the broker: the next try is that much later."""
        self._patience.begin()
        self._progress_at = now
        wait = min(PATIENCE_S * 2**self._tries, LONGEST_WAIT_S)
        self._retry_at = now + wait * self._rng.uniform(0.5, 1.0)

    on_connected = send

    def on_sent(self, token: int, ok: bool, now: float) -> list[Action]:
        """The broker has acknowledged a part, or refused it; a refused part is sent again at the next try."""
        part = self._in_flight.pop(token, None)
        if part is None:
            return []
        if not ok:
            self._unsent.append(part)
            return []
        out = self.send(now)
        if self._patience.flow is not None:
            self._newest.append((now, part))
            if not out:  # the receipt may take as long after the last part
                self._wait(now)
        return out

    def on_missing(self, parts: list[int], now: float) -> list[Action]:
        """The aggregator asks for these parts."""
        self._begin_at = now
        crossed = (part for at, part in self._newest if now < at + CROSSED_S)
        under_way = {*self._unsent, *self._in_flight.values(), *crossed}
        self._unsent.extend(p for p in parts if p < self._splitter.parts and p not in under_way)
        return self.send(now)

    def on_disconnected(self) -> None:
        """Parts in flight may be lost: they go first on the next connection."""
        self._unsent.extendleft(sorted(self._in_flight.values(), reverse=True))
        self._in_flight.clear()

    def probe(self, now: float) -> list[Action]:
        """Send the first part again. The answer is a receipt, or a request for the other parts.

        The round was announced again, by a broker or an aggregator that may have lost all that was sent.
        """
        if self.counted or self._unsent or self._in_flight:
            return []
        self._unsent.append(0)
        self._begin_at = None
        return self.send(now)

    def ask(self, now: float) -> list[Action]:
        """A later round has opened while parts are on their way: see that the first part is among those that arrive
        from now on. It alone has an answer, if the update counted or no round can add it."""
        if 0 not in (*self._unsent, *self._in_flight.values()):
            self._unsent.appendleft(0)
        return self.send(now)

    def hurry(self, now: float) -> None:
        """A round has been announced that asks for this late report: try again soon, however often that was in vain."""
        self._tries = 0
        if not self.counted:
            self._retry_at = min(self._retry_at, now + PATIENCE_S)

    def cancel(self) -> list[Action]:
        """Nothing has to be taken back: the report just stops."""
        return []

    def on_tick(self, now: float) -> list[Action]:
        """It is this device's turn; or patience has ended, and the report begins again."""
        if self._held_back:
            return self.send(now)
        if self._is_under_way(now):
            self._retry_at = now + PATIENCE_S
            return []
        self.counted = False
        self._tries = min(self._tries + 1, 10)
        self._in_flight.clear()
        self._unsent = deque(self._unasked)
        out: list[Action] = [
            Note("info", f"round {self.number}: no receipt for the update yet, sent again", round=self.number)
        ]
        out += self.send(now)
        return out

    def _is_under_way(self, now: float) -> bool:
        """Whether parts, or the receipt behind other data, may still be on their way. Parts without an acknowledgement
        are: a connection that lives loses nothing."""
        if self._patience.extend():
            self._progress_at = now
            return True
        unacknowledged = bool(self._in_flight) and self._patience.flow is not None
        return unacknowledged and now < self._progress_at + LONGEST_WAIT_S
