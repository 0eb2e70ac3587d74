"""What systemd is told of a daemon: that it is ready, that it is alive, that it stops (sd_notify(3)).

Without systemd, or in a unit that is not `Type=notify`, nothing is sent. A daemon is alive while the loop of each of
its hosts turns: a broker that is away, or a data source that hangs in its worker, is no reason to restart it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

BEATS = 3  # within the time that the unit allows


class Notifier:
    """Tells systemd of all hosts of this process; any of their threads may call it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract socket
            self._address = "\0" + self._address[1:]
        allowed_us = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._every_s = int(allowed_us) / 1e6 / BEATS if allowed_us.isdecimal() and ours else 0.0
        self._turned: dict[object, float] = {}  # host -> when its loop last turned
        self._told_at: float | None = None  # None: not even that we are ready

    def turned(self, host: object, now: float) -> None:
        """The host's loop has turned: it is ready, and alive."""
        if not self._address:
            return
        self._turned[host] = now
        if self._told_at is None:
            self._told_at = now
            self._send("READY=1")
        elif self._every_s and min(tuple(self._turned.values())) >= self._told_at + self._every_s:
            self._told_at = now
            self._send("WATCHDOG=1")

    def ended(self, host: object) -> None:
        """The host's loop turns no more."""
        if self._turned.pop(host, None) is not None and not self._turned:
            self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with channel, suppress(OSError):  # nobody listens: as without systemd
            channel.sendto(text.encode(), self._address)


systemd = Notifier(os.environ)
