"""Files that are replaced whole: after a kill or a power cut there is the old file or the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial"  # ending of a file that is being written beside the one that it will replace


def write_atomically(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o666, exact: int | None = None) -> None:
    """Replace `path` by `data`, durable when this returns. If OSError is raised, or an error of what makes the data,
    `path` is as it was.

    `mode` has the permissions of the new file, from which the process's umask takes; `exact` has those that it gets in
    spite of the umask.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, mode)  # a link there is not ours

    try:
        with open(partial, "wb", opener=opener) as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            if exact is not None:
                os.fchmod(file.fileno(), exact)
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:  # of whatever makes the data too
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable: a rename itself must survive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_partials(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed left half written, of the file `name` or of all. No other process may be
    writing these in `folder`."""
    for path in folder.glob(f".{name}.*{PARTIAL}"):
        path.unlink(missing_ok=True)
