"""The machine's clock: what time of day it shows, and whether it can be trusted.

A Raspberry Pi has no battery-backed clock: after a power cut it shows a time of the past until it has heard from a time
server. The clock is trusted as soon as one of these holds, and from then on as long as the process runs:

    the kernel says that the clock is synchronised (adjtimex; chrony, ntpd and timesyncd tell it)
    /run/systemd/timesync/synchronized exists: timesyncd has set the clock since the machine was started
    a battery-backed clock (/sys/class/rtc) shows the same time, within an hour
    the environment has EDGEFL_TRUST_CLOCK=1, for a virtual machine whose clock is kept by its host
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from .. import _core
from ..machine import WallTime

TRUST = "EDGEFL_TRUST_CLOCK"
SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
RTC = Path("/sys/class/rtc")
RELEASED_S = 1_767_225_600  # 2026-01-01: no clock that is right shows less
RTC_DIFFERS_S = 3600.0
JUMP_S = 1.0  # a clock that was off by more than this has been set
REPEAT_S = 60.0
TIME_ERROR = 5  # adjtimex: the clock is not synchronised


class WallClock:
    """Tells a machine the time when it is due."""

    def __init__(self) -> None:
        self._trusted = False
        self._offset = 0.0
        self._due_at: float | None = None

    def news(self) -> WallTime | None:
        """The time, at the first call, when the clock has been set, and once a minute."""
        now, unix_s = time.monotonic(), time.time()
        jumped = abs(unix_s - now - self._offset) > JUMP_S
        if self._due_at is not None and now < self._due_at and not jumped:
            return None
        self._due_at, self._offset = now + REPEAT_S, unix_s - now
        self._trusted = self._trusted or is_trusted(unix_s)
        return WallTime(unix_s, self._trusted)


def is_trusted(unix_s: float) -> bool:
    """Whether the clock, which shows `unix_s`, can be right."""
    if os.environ.get(TRUST) == "1":
        return True
    if unix_s < RELEASED_S:
        return False
    return sys.platform != "linux" or _kernel_says_so() or SYNCHRONIZED.exists() or _rtc_agrees(unix_s)


def _kernel_says_so() -> bool:
    return 0 <= _core.clock_state() < TIME_ERROR


def _rtc_agrees(unix_s: float) -> bool:
    for file in sorted(RTC.glob("rtc*/since_epoch")):
        with suppress(OSError, ValueError):
            shown_s = int(file.read_text())
            if abs(shown_s - unix_s) < RTC_DIFFERS_S:
                return True
    return False
