"""Line: one direction of a simulated link. First in, first out, with a rate; nothing is lost on it."""

from __future__ import annotations

from collections import deque

from ..machine import Flow

QUICK = 1e9  # bytes a second, of a line without a rate


class Line:
    """`rate` in bytes a second; None: a message passes at once."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.free_at = 0.0
        self._sent = 0
        self._queue: deque[tuple[float, int]] = deque()  # of each message: when it will have passed, its size

    def send(self, size: int, now: float) -> float:
        """The time at which a message of `size` bytes, sent now, has passed: all that was sent before it goes first."""
        self._sent += size
        if self.rate is None:
            return now
        self._drop_passed(now)
        self.free_at = max(now, self.free_at) + size / self.rate
        self._queue.append((self.free_at, size))
        return self.free_at

    def progress(self, now: float) -> tuple[int, int, int]:
        """Bytes that have passed until now; that have not; and of the first, those of a message which is passing."""
        self._drop_passed(now)
        pending = int((self.free_at - now) * (self.rate or 0.0)) if self._queue else 0
        return self._sent - pending, pending, sum(size for _, size in self._queue) - pending

    def _drop_passed(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            self._queue.popleft()

    def heal(self) -> None:
        """From now on messages pass at once, those that are queued in their time."""
        self.rate = None
        self._queue.clear()


def flow(up: Line, down: Line, now: float, *, keepalive_s: float, before: tuple[int, int] = (0, 0)) -> Flow:
    """What a host that measures its link tells its machine. `before`: bytes that passed over earlier links, up and
    down."""
    acknowledged, pending, _ = up.progress(now)
    received, _, arriving = down.progress(now)
    return Flow(
        received=before[1] + received, acknowledged=before[0] + acknowledged, pending=pending, arriving=arriving,
        rate_in=down.rate or QUICK, rate_out=up.rate or QUICK, keepalive_s=keepalive_s,
    )  # fmt: skip
