"""Patience: what waits for the link is not given up while the link still carries it. Part of DeviceSession; no I/O.

A device subscribes again, or publishes again, when it has waited in vain. On a slow link that would only queue a
second copy behind the first. So a wait is extended while something moves: while bytes on their way to the broker are
being acknowledged, or a packet is arriving. Nothing is known to move if the host does not measure it (`Flow`).
"""

from __future__ import annotations

from ..machine import Flow
from ..protocol.parts import quick_part_bytes

UNMEASURED = 2**31
LEAST_AT_ONCE = 2


class Patience:
    """What the host last told, and what it had told when a wait was last extended."""

    def __init__(self) -> None:
        self.flow: Flow | None = None
        self._before: Flow | None = None

    def begin(self) -> None:
        """A wait begins: what has passed until now is no reason to extend it."""
        self._before = self.flow

    @property
    def received(self) -> int:
        """Bytes that have come since the host began, as far as it tells."""
        return self.flow.received if self.flow else 0

    def extend(self) -> bool:
        """Whether something has moved since the wait began, or was last extended."""
        now, before = self.flow, self._before
        self._before = now
        if now is None or before is None:
            return False
        drains = now.pending > 0 and now.acknowledged > before.acknowledged
        return drains or (now.arriving > 0 and now.received > before.received)

    @property
    def part_bytes(self) -> int:
        """The longest part that suits the link, on the way to the broker."""
        return quick_part_bytes(self.flow.rate_out, self.flow.keepalive_s) if self.flow else UNMEASURED

    def asked_at_once(self, part_bytes: int, most: int) -> int:
        """How many parts of a model to ask for at once."""
        return _at_once(part_bytes, most, self.flow.rate_in, self.flow.keepalive_s) if self.flow else most

    def sent_at_once(self, part_bytes: int, most: int) -> int:
        """How many parts of an update to send before the first of them is acknowledged."""
        return _at_once(part_bytes, most, self.flow.rate_out, self.flow.keepalive_s) if self.flow else most


def _at_once(part_bytes: int, most: int, rate: float, keepalive_s: float) -> int:
    """As many parts as take half a keep-alive, but two: they keep the link busy. What is under way is lost if the round
    ends, and everything else waits behind it."""
    return max(LEAST_AT_ONCE, min(most, 2 * quick_part_bytes(rate, keepalive_s) // part_bytes))
