"""Governor: whether the owner's limits on power, heat, link, disk and memory let this device train now.

`reasons` decides, from readings alone. Training itself heats the machine and takes memory, so it would begin and end
every few seconds. So what has paused the device is over only when the reading is better than the limit by a margin, and
for heat, disk and memory after a minute. A reading that the machine does not give stops nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from edgefl.hosting import sensors
from edgefl.hosting.programs import Answer, run
from edgefl.protocol.trouble import Trouble

LOOK_S = 5.0  # between two readings
HUNG_S = 30.0  # for a reading to end: a driver may hang
COMMAND_S = 10.0  # for the owner's program
COOLER = 5.0  # degrees below the limit from which on the device goes on
MORE_MEMORY, MORE_DISK = 1.5, 1.1  # times the limit
HOLD_S = 60.0
MB = 2**20


class Wanted(Struct, frozen=True):
    """The owner's limits; None or False: no such limit. `state_dir` is on the disk that is kept free."""

    state_dir: Path
    mains_only: bool = False
    max_celsius: float | None = None
    pause_when_throttled: bool = False
    unmetered_only: bool = False
    min_free_disk_mb: float | None = None  # None: a twentieth of the disk, at most 256
    min_free_memory_mb: float | None = None  # None: a sixteenth of the memory, at most 256
    pause_command: tuple[str, ...] = ()

    @property
    def may_block(self) -> bool:
        """Whether a driver or a program is asked, which may take its time."""
        told = self.mains_only or self.pause_when_throttled or self.unmetered_only or self.max_celsius is not None
        return told or bool(self.pause_command)


class Readings(NamedTuple):
    """What sensors.py says; None: nothing. `min_free_*` are in bytes."""

    on_mains: bool | None = None
    celsius: float | None = None
    throttled: str | None = None
    metered: bool | None = None
    free_disk: int | None = None
    min_free_disk: float = 0.0
    free_memory: int | None = None
    min_free_memory: float = 0.0
    command: Answer | None = None


def _battery(wanted: Wanted, seen: Readings, held: bool) -> str:
    return "on battery" if wanted.mains_only and seen.on_mains is False else ""


def _heat(wanted: Wanted, seen: Readings, held: bool) -> str:
    if wanted.max_celsius is None or seen.celsius is None:
        return ""
    limit = wanted.max_celsius - (COOLER if held else 0)
    return f"{seen.celsius:.0f} °C, the limit is {wanted.max_celsius:g}" if seen.celsius > limit else ""


def _throttled(wanted: Wanted, seen: Readings, held: bool) -> str:
    return seen.throttled or "" if wanted.pause_when_throttled else ""


def _metered(wanted: Wanted, seen: Readings, held: bool) -> str:
    return "its link is metered" if wanted.unmetered_only and seen.metered else ""


def _disk(wanted: Wanted, seen: Readings, held: bool) -> str:
    return _too_little("disk space", seen.free_disk, seen.min_free_disk, MORE_DISK if held else 1)


def _memory(wanted: Wanted, seen: Readings, held: bool) -> str:
    return _too_little("memory", seen.free_memory, seen.min_free_memory, MORE_MEMORY if held else 1)


def _too_little(what: str, free: int | None, least: float, times: float) -> str:
    if free is None or free >= least * times:
        return ""
    return f"{free / MB:.0f} MB of {what} are free, {least / MB:.0f} are kept"


def _command(wanted: Wanted, seen: Readings, held: bool) -> str:
    if not wanted.pause_command or seen.command is None or seen.command.code == 0:
        return ""
    code, line = seen.command
    return line if code is not None and line else f"pause_command {line or f'ended with {code}'}"


RULES: dict[str, tuple[str, Callable[[Wanted, Readings, bool], str]]] = {
    "battery": ("power", _battery),
    "heat": ("heat", _heat),
    "throttled": ("heat", _throttled),
    "metered": ("metered", _metered),
    "disk": ("room", _disk),
    "memory": ("room", _memory),
    "command": ("busy", _command),
}
HELD = ("heat", "throttled", "disk", "memory")  # for HOLD_S at least


class Reason(NamedTuple):
    """Why a rule pauses the device, and since when."""

    why: Trouble
    since: float


def reasons(wanted: Wanted, seen: Readings, last: Mapping[str, Reason], now: float) -> dict[str, Reason]:
    """The rules that pause the device now, with `last` those that have paused it so far."""
    out = {}
    for name, (code, rule) in RULES.items():
        before = last.get(name)
        text = rule(wanted, seen, before is not None)
        if before and name in HELD and (text or now < before.since + HOLD_S):
            out[name] = before  # with its first number: each other one would be another status
        elif text:
            out[name] = Reason(Trouble(code, text), before.since if before else now)
    return out


class Governor:
    """`look` is called now and then, and never waits for a driver or a program."""

    def __init__(self, wanted: Wanted, read: Callable[[Wanted], Readings] | None = None) -> None:
        self.wanted, self._read = wanted, read or read_all
        self._reasons: dict[str, Reason] = {}
        self._look_at = self._began = 0.0
        self._reading: _Reading | None = None
        self._why: Trouble | None = None
        if wanted.may_block:  # until the first reading
            self._why = Trouble("busy", "the owner's limits have not been checked yet")

    def look(self, now: float) -> Trouble | None:
        """Why the owner's limits pause the device; None if they do not."""
        if self._reading is None and now >= self._look_at:
            self._look_at, self._began = now + LOOK_S, now
            if not self.wanted.may_block:
                return self._judge(self._read(self.wanted), now)
            self._reading = _Reading(self._read, self.wanted)
        if self._reading is not None:
            if (seen := self._reading.seen) is not None:
                self._reading = None
                return self._judge(seen, now)
            if now >= self._began + HUNG_S:
                self._why = Trouble("busy", f"a sensor has not answered for {HUNG_S:.0f} s")
        return self._why

    def _judge(self, seen: Readings, now: float) -> Trouble | None:
        self._reasons = reasons(self.wanted, seen, self._reasons, now)
        self._why = next((reason.why for reason in self._reasons.values()), None)
        return self._why


class _Reading(threading.Thread):
    """Reads everything once; the process does not wait for it at its end. `seen` is what it has found."""

    def __init__(self, read: Callable[[Wanted], Readings], wanted: Wanted) -> None:
        super().__init__(name="limits", daemon=True)
        self.seen: Readings | None = None
        self._read, self.wanted = read, wanted
        self.start()

    def run(self) -> None:
        self.seen = self._read(self.wanted)


def read_all(wanted: Wanted, root: Path = sensors.ROOT) -> Readings:
    """The readings that the limits need."""
    space = sensors.disk(wanted.state_dir)
    return Readings(
        on_mains=sensors.on_mains(root) if wanted.mains_only else None,
        celsius=sensors.celsius(root) if wanted.max_celsius is not None else None,
        throttled=sensors.throttled(root) if wanted.pause_when_throttled else None,
        metered=sensors.metered() if wanted.unmetered_only else None,
        free_disk=space and space[0],
        min_free_disk=_least(wanted.min_free_disk_mb, space and space[1], 1 / 20),
        free_memory=sensors.free_memory(root),
        min_free_memory=_least(wanted.min_free_memory_mb, sensors.memory(root), 1 / 16),
        command=run(wanted.pause_command, COMMAND_S) if wanted.pause_command else None,
    )


def share(total: int | None, part: float, most_mb: float) -> float:
    """Bytes: a part of what the machine has, but at most so many megabytes."""
    return most_mb * MB if total is None else min(total * part, most_mb * MB)


def _least(mb: float | None, total: int | None, part: float) -> float:
    return share(total, part, 256) if mb is None else mb * MB
