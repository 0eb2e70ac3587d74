"""Acting as the owner of a folder: what root writes into a folder of the agent's user, it writes as that user.

A user may put links into its own folder at any time. Followed by root, they would lead to any file of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """For root, and the whole process: the rights of the folder's user and group, and no others. UsageError."""
    if os.geteuid() != 0:
        yield
        return
    try:
        owner, group, groups = folder.stat(), os.getegid(), os.getgroups()
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}: name the state_dir, with --state-dir or --config") from None
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
