"""What a SPEC's examples look like from outside: size and time of the files, so that a change is seen unread."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from ..errors import EdgeFLError

Look: TypeAlias = list[tuple[str | int, ...]]
CODE = ("python",)  # kinds that only a call of the owner's code can tell


def look(kind: str, rest: str, options: dict[str, str]) -> Look:
    """Empty if only reading tells. Nothing is raised: reading will say what is wrong."""
    if kind in CODE:
        return []
    path = Path(rest).expanduser()
    if kind == "folder":
        from .folder import chosen, is_torn  # imported by devices that have one

        try:
            files = chosen(path, options)
        except EdgeFLError:
            return []
        # A file that was left for later is whole after a while without any change.
        return [
            (file.name, *stamp, file.suffix == ".csv" and is_torn(file)) for file in files for stamp in _stamps(file)
        ]
    # And the log in which SQLite may keep the newest rows.
    return [stamp for file in (path, Path(f"{path}-wal")) for stamp in _stamps(file)]


def _stamps(path: Path) -> Look:
    with suppress(OSError):  # it may go at any moment
        status = os.stat(path)
        return [(status.st_mtime_ns, status.st_size)]
    return []
