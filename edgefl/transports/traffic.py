"""Traffic: how many bytes pass a connection, counted by the kernel, and what rate follows from them.

The kernel counts bytes as they cross the link, so a record of TLS that is half there counts, and so does data that was
handed over long ago and still drains. Nothing here reads a clock.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Any, NamedTuple

from ..machine import Flow

# Of Linux's struct tcp_info, since 4.1: tcpi_bytes_acked and tcpi_bytes_received, at this offset.
_TCP_INFO = struct.Struct("=QQ")
_TCP_INFO_AT, _TCP_INFO_SIZE = 120, 136
_INT = struct.Struct("i")

SLOWEST = 1200.0  # bytes a second, 9.6 kbit/s: what a link is taken for until something has passed it
ENOUGH_S = 2.0  # of measuring, before a measured rate is believed
KEPT = 0.8  # of what was measured, at each further measurement


class Counts(NamedTuple):
    """Bytes of one connection: received, acknowledged by the peer's kernel, and not acknowledged yet."""

    received: int = 0
    acknowledged: int = 0
    pending: int = 0


def kernel_counts(sock: Any) -> Counts | None:
    """What the kernel has counted on a TCP socket; None if it can't tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (pending,) = _INT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
    except (OSError, AttributeError, ValueError):
        return None
    if len(info) < _TCP_INFO_SIZE:
        return None
    acknowledged, received = _TCP_INFO.unpack_from(info, _TCP_INFO_AT)
    return Counts(received, acknowledged, pending)


class Meter:
    """The rate of one direction, in bytes a second.

    While bytes wait for the link all the time, the rate at which they pass is the link's own. Else it is at least what
    has passed.
    """

    def __init__(self) -> None:
        self._bytes = self._seconds = 0.0  # of the measurements, older ones weighing less
        self._least = 0.0

    def measure(self, num_bytes: int, seconds: float, full: bool) -> None:
        """So many bytes have passed in `seconds`; `full`: more of them waited at the beginning and at the end."""
        if num_bytes <= 0 or seconds <= 0:
            return
        rate = num_bytes / seconds
        if full:
            self._bytes = KEPT * self._bytes + num_bytes
            self._seconds = KEPT * self._seconds + seconds
        elif rate > self._least:
            self._least = rate
        if not full and self._seconds and rate > self._bytes / self._seconds:  # the link has become faster
            self._bytes = self._seconds = 0.0

    @property
    def measured(self) -> float:
        """The link's rate; 0: unknown."""
        return self._bytes / self._seconds if self._seconds >= ENOUGH_S else 0.0

    @property
    def least(self) -> float:
        """What the link's rate is at least, if anything is known."""
        return self._least


class Gauge:
    """What passes a link, over all its connections. `flow` is replaced whenever something has passed."""

    def __init__(self, keepalive_s: float) -> None:
        self.flow: Flow | None = None
        self._keepalive_s = keepalive_s
        self._in, self._out = Meter(), Meter()
        self._received = self._acknowledged = 0
        self._last, self._arriving, self._at = Counts(), 0, 0.0

    def begin(self, now: float) -> None:
        """There is a new connection, whose counts begin at 0."""
        self._last, self._arriving, self._at = Counts(), 0, now
        self._set()

    def look(self, counts: Counts, arriving: int, now: float) -> None:
        """What has been counted on the connection so far; `arriving`: bytes of a packet that is not whole yet."""
        last, seconds = self._last, now - self._at
        received, acknowledged = counts.received - last.received, counts.acknowledged - last.acknowledged
        self._in.measure(received, seconds, full=bool(self._arriving and arriving))
        self._out.measure(acknowledged, seconds, full=bool(last.pending and counts.pending))
        self._received += received
        self._acknowledged += acknowledged
        moved = counts != last or arriving != self._arriving
        self._last, self._arriving, self._at = counts, arriving, now
        if moved:
            self._set()

    def _set(self) -> None:
        rate_in = self._in.measured or max(self._in.least, SLOWEST)
        rate_out = self._out.measured or max(self._out.least, rate_in)
        self.flow = Flow(
            self._received, self._acknowledged, self._last.pending, self._arriving, rate_in, rate_out, self._keepalive_s
        )
