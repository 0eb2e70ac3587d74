"""The machine: versions, instruction set, memory, disk, clock and temperature."""

from __future__ import annotations

import errno
import logging
import os
import platform
import sqlite3
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol, TypeVar

from .. import __version__, _core
from ..errors import UsageError
from ..hosting import sensors, wall_clock
from .report import WRONG_USE, Finding, Line, Report, Table, ok, parted, problem, run, show, skipped, warning

MB = 2**20
LITTLE_MEMORY, LITTLE_DISK = 64 * MB, 64 * MB  # below which a daemon can hardly work
TRIAL_BYTES = MB  # written and removed
FULL = (errno.ENOSPC, errno.EDQUOT)
HOT = 80.0  # degrees, at which a Raspberry Pi slows down


@dataclass(frozen=True)
class Machine:
    """A machine without a configuration."""

    packages: tuple[str, ...]
    state_dir: Path | None = None


class Place(Protocol):
    """What these checks need to know of their subject."""

    @property
    def state_dir(self) -> Path | None:
        """The folder on whose disk space is needed; None: the working directory's disk."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions matter."""


def versions(place: Place) -> Finding:
    """EdgeFL, Python and the libraries that the daemon uses."""
    found, missing = [], []
    for name in place.packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join(
        [f"EdgeFL {__version__}", f"Python {platform.python_version()}", *found, f"SQLite {sqlite3.sqlite_version}",
         ssl.OPENSSL_VERSION.partition(" (")[0].strip()]
    )  # fmt: skip
    if missing:
        return problem(f"{text}; missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return ok(text)


def isa(place: Place) -> Finding:
    """The instruction set that the core computes with."""
    found, machine = _core.isa(), platform.machine()
    if found == "baseline" and machine in ("x86_64", "aarch64"):
        text = f"{machine}, plain code without vectors: training is several times slower than it could be"
        return warning(text, "a virtual machine may hide them: give it the host's processor; EDGEFL_ISA is to be unset")
    return ok(f"{machine}, {found}")


def memory(place: Place) -> Finding:
    """Memory that is free."""
    whole, free = sensors.memory(), sensors.free_memory()
    if whole is None or free is None:
        return skipped("this machine does not say how much memory it has")
    text = f"{free // MB} of {whole // MB} MB available"
    if free < LITTLE_MEMORY:
        return warning(text, "stop other programs, or choose a smaller model")
    return ok(text)


def disk(place: Place) -> Finding:
    """Room on the disk of the state folder, and whether it can be written."""
    folder = place.state_dir
    path = nearest_folder(folder or Path.cwd())
    found = sensors.disk(path)
    if found is None:
        return skipped(f"{path} does not say how much room it has")
    free, whole = found
    text = f"{free // MB} of {whole // MB} MB free for {folder or path}"
    if free < LITTLE_DISK:
        return problem(text, "free some space: an update and the state must be written before they are sent")
    return ok(text)


def clock(place: Place) -> Finding:
    """Whether the time of day can be right: NTP, or a clock with a battery."""
    unix_s = time.time()
    shown = datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    rtc = any(wall_clock.RTC.glob("rtc*/since_epoch"))
    battery = "a clock with a battery" if rtc else "no clock with a battery"
    if unix_s < wall_clock.RELEASED_S:
        return problem(f"it shows {shown}, which is past; {battery}", "set it: timedatectl set-ntp true")
    if wall_clock.is_trusted(unix_s):
        return ok(f"{shown}, can be trusted; {battery}")
    todo = "timedatectl set-ntp true; in a virtual machine or container whose host keeps the time, EDGEFL_TRUST_CLOCK=1"
    return warning(f"{shown}, not synchronised: hours, windows and certificates can't go by it; {battery}", todo)


def temperature(place: Place) -> list[Finding] | Finding:
    """How hot it is, and whether it is slowed down for that."""
    celsius, throttled = sensors.celsius(), sensors.throttled()
    if celsius is None and throttled is None:
        return skipped("this machine has no sensor that can be read")
    text = f"{celsius:.0f} degrees" if celsius is not None else "no temperature"
    if throttled:
        return warning(
            f"{text}; {throttled}", "a better power supply, or cooling; [limits] cpu_percent makes less heat"
        )
    if celsius is not None and celsius >= HOT:
        return warning(text, "cool it, or set [limits] max_celsius or cpu_percent")
    return ok(text)


def writable(place: Place) -> Finding:
    """Whether the state folder can be written, by writing a megabyte there, which is removed at once."""
    folder = place.state_dir or Path.cwd()
    inside = nearest_folder(folder)
    try:
        with TemporaryFile(dir=inside) as file:
            file.write(b"\0" * TRIAL_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        todo = "give the folder to the user that runs this program"
        if error.errno in FULL:
            todo = "free some space"
        elif inside != folder.absolute():
            todo = f"make {folder} and give it to the user that runs this program, or set another state_dir"
        return problem(f"{inside} can't be written: {error.strerror}", todo)
    return ok(f"{folder} can be written" if inside == folder.absolute() else f"{folder} can be made")


class Checked(Protocol):
    """What a daemon's checks look at; `running`: the daemon runs."""

    @property
    def running(self) -> bool: ...


C = TypeVar("C", bound=Checked)


def check(
    of: str, path: str, make: Callable[[], C], checks: Table[C], packages: tuple[str, ...], *, as_json: bool
) -> int:  # fmt: skip
    """Check the daemon `of` whose configuration is in `path`, and print what was found. Returns the exit code: 0; 1 if
    there is something to do; 2 if `make` can't use the configuration, and the machine alone was looked at."""
    logging.getLogger("edgefl").setLevel(logging.CRITICAL)
    try:
        subject = make()
    except UsageError as error:
        said = map(parted, str(error).split("\n"))
        wrong = [Line("settings", *problem(f"{path}: {text}", todo)) for text, todo in said]
        show(Report(of=of, config=path, checks=[*run(CHECKS, Machine(packages)), *wrong]), as_json=as_json)
        return WRONG_USE
    return show(Report(of=of, config=path, running=subject.running, checks=run(checks, subject)), as_json=as_json)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


CHECKS = {
    "versions": versions,
    "processor": isa,
    "memory": memory,
    "disk": disk,
    "folder": writable,
    "clock": clock,
    "temperature": temperature,
}
