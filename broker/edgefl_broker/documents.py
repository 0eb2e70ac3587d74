"""Documents of the root on this machine, for aggregator and helper: the roster, and what all of them have in common.

The operator copies them here, and may replace them while a daemon runs. One that is older than one that was in use is
refused, across restarts too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgefl.errors import ProtocolError, UsageError
from edgefl.trust.key_files import read_file
from edgefl.trust.roster import Roster

COPY = "copy it again from the folder of `edgefl keys`"
# It is given a document's name and serial, stores the highest one durably, and returns it.
Highest = Callable[[str, int], int]


def read_roster(path: Path, root: bytes, federation: str, highest: Highest) -> Roster:
    """The roster in a file; UsageError if it can't be used."""
    try:
        roster = Roster.open(read_file(path), root, federation)
    except ProtocolError as error:
        raise unfit(path, error) from None
    check_serial(path, "roster_serial", roster.serial, highest)
    return roster


def check_serial(path: Path, kind: str, serial: int, highest: Highest) -> None:
    """UsageError if a newer document of this kind has been in use."""
    newest = highest(kind, serial)
    if serial < newest:
        raise UsageError(f"{path} is number {serial}, and number {newest} has been in use: {COPY}")


def unfit(path: Path, error: ProtocolError) -> UsageError:
    """The error for a document that the root has not sealed for this federation."""
    why = str(error).removesuffix(": dropped")
    return UsageError(f"{path} can't be used: {why}: {COPY}")


def mark(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced; None if it is not there. It has the time of the file's last change here, since
    tar restores the time at which a file was made."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ctime_ns, status.st_ino, status.st_size
