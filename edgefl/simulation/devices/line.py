"""Line: one direction of a simulated link. First in, first out, with a rate; nothing is lost on it."""

from __future__ import annotations

from collections import deque

from ...machine import Flow

QUICK = 1e9  # bytes a second, of a line without a rate


class Line:
    """`rate` in bytes a second; None: a message passes at once."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.free_at = 0.0
        self._sent = self._behind = 0
        self._queued_rate = rate or QUICK  # at which what is queued passes
        self._queue: deque[tuple[float, int]] = deque()  # of each message: when it will have passed, its size

    def send(self, size: int, now: float) -> float:
        """The time at which a message of `size` bytes, sent now, has passed: all that was sent before it goes first."""
        self._sent += size
        self._drop_passed(now)
        if self.rate is None:
            if self._queue:
                self._behind += size
            return max(now, self.free_at)
        self.free_at = max(now, self.free_at) + size / self.rate
        self._queue.append((self.free_at, size))
        return self.free_at

    def progress(self, now: float) -> tuple[int, int, int]:
        """Bytes that have passed until now; that have not; and of the first, those of a message which is passing."""
        self._drop_passed(now)
        if not self._queue:
            return self._sent, 0, 0
        queued = int((self.free_at - now) * self._queued_rate)
        pending = queued + self._behind
        return self._sent - pending, pending, sum(size for _, size in self._queue) - queued

    def rate_at(self, now: float) -> float:
        """Bytes a second that pass now."""
        self._drop_passed(now)
        return self._queued_rate if self._queue else self.rate or QUICK

    def _drop_passed(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            self._queue.popleft()

    def heal(self) -> None:
        """Messages that are queued pass in their time; those that are sent from now on pass at once, behind them."""
        self.rate = None


def flow(up: Line, down: Line, now: float, *, keepalive_s: float, before: tuple[int, int] = (0, 0)) -> Flow:
    """What a host that measures its link tells its machine. `before`: bytes that passed over earlier links, up and
    down."""
    acknowledged, pending, _ = up.progress(now)
    received, _, arriving = down.progress(now)
    return Flow(
        received=before[1] + received, acknowledged=before[0] + acknowledged, pending=pending, arriving=arriving,
        rate_in=down.rate_at(now), rate_out=up.rate_at(now), keepalive_s=keepalive_s,
    )  # fmt: skip
