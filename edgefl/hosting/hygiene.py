"""What both daemons do before they read a key: nothing that they hold in memory or write is there for other users."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from .. import _core


def harden() -> None:
    """No core file, no other process of this user that reads our memory (ptrace, /proc/PID/mem), and no file that
    others can read. For the whole process, so only a program's own `main` calls it."""
    os.umask(0o077)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _core.hide_memory()
