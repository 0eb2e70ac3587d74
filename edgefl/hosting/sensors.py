"""What the machine says of its power, heat, link, disk and memory. None: this machine does not say.

Each function takes the root below which /sys and /proc lie, so that tests can use a tree of their own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .programs import run

ROOT = Path("/")
THROTTLED = {0: "under-voltage", 2: "the processor is throttled"}  # bits of get_throttled that hold now
TOOL_S = 2.0  # for vcgencmd or busctl
METERED = {"1": True, "3": True, "2": False, "4": False}  # NetworkManager's NMMetered; 3 and 4 are guesses
BUSCTL = (
    "busctl", "--system", "get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager", "Metered",
)  # fmt: skip


def on_mains(root: Path = ROOT) -> bool | None:
    """Whether the machine has power from outside: a supply is on line, or no battery of its own is discharging."""
    outside, discharging = [], []
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(supply / "scope") == "Device":  # the battery of a mouse
            continue
        if _text(supply / "type") == "Battery":
            discharging.append(_text(supply / "status") == "Discharging")
        elif (online := _text(supply / "online")) is not None:
            outside.append(online != "0")
    if any(outside):
        return True
    if not discharging:  # it runs, so it has power from where no supply tells
        return None
    return not outside and not any(discharging)


def celsius(root: Path = ROOT) -> float | None:
    """The temperature of the hottest thermal zone."""
    found = [_number(zone / "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*")]
    return max((thousandths / 1000 for thousandths in found if thousandths is not None), default=None)


def throttled(root: Path = ROOT) -> str | None:
    """What slows a Raspberry Pi down now; "": nothing does."""
    files = sorted((root / "sys/devices/platform").glob("*/*firmware/get_throttled"))  # the bus's name differs
    text = next((found for file in files if (found := _text(file)) is not None), None)
    if text is None:
        answer = run(("vcgencmd", "get_throttled"), TOOL_S)
        if answer.code != 0:
            return None
        text = answer.line.rpartition("=")[2]
    try:
        bits = int(text, 16)
    except ValueError:
        return None
    return ", ".join(words for bit, words in THROTTLED.items() if bits >> bit & 1)


def metered() -> bool | None:
    """Whether NetworkManager takes the link that is in use for a metered one."""
    answer = run(BUSCTL, TOOL_S)
    return METERED.get(answer.line.rpartition(" ")[2]) if answer.code == 0 else None


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that programs can still have without swapping."""
    return _meminfo(root, "MemAvailable")


def memory(root: Path = ROOT) -> int | None:
    """Bytes that the machine has, or that the control group of this process may have (systemd's MemoryMax)."""
    found = [_meminfo(root, "MemTotal")]
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            found.append(_number(root / "sys/fs/cgroup" / line[3:].strip("/") / "memory.max"))
    return min((size for size in found if size is not None), default=None)


def disk(path: Path) -> tuple[int, int] | None:
    """Bytes of the file system of `path`: those that are free for us, and all."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def _meminfo(root: Path, name: str) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            with suppress(ValueError, IndexError):
                return int(rest.split()[0]) * 1024
    return None


def _text(path: Path) -> str | None:
    """A small file's text; None if it can't be read: drivers answer with all kinds of errors."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None
