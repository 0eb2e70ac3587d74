"""Files that nobody but the user of this process reads: made so, checked, and found among systemd's credentials."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import UsageError

OTHERS = 0o077  # permissions of the group and of all others
CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd's LoadCredential= names a folder in it
MAX_SECRET_BYTES = 4096


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=opener)`: a file that is created can be read by its owner alone."""
    return os.open(path, flags, 0o600)


def tighten(path: Path) -> None:
    """Take the permissions of all others away from a file of ours, if it exists; OSError if that fails."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return
    if mode & OTHERS:
        path.chmod(mode & ~OTHERS)


def find(name: str) -> Path:
    """The file that a configuration names: a bare name that is one of systemd's credentials is that credential."""
    folder = os.environ.get(CREDENTIALS)
    if folder and "/" not in name and (Path(folder) / name).exists():
        return Path(folder) / name
    return Path(name)


def check(path: Path, what: str) -> None:
    """UsageError if others can read this file, or nobody can; `what` says what it is."""
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise _unreadable(path, what, error) from None
    if mode & OTHERS and not _is_credential(path):
        raise UsageError(
            f"{what} {path} can be read by other users (mode {mode:04o}): chmod 600 {path}, and let it belong to the "
            "user that runs this program"
        )


def check_readable(path: Path, what: str) -> None:
    """UsageError if we can't read this file; `what` says what it is."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise UsageError(f"can't read {what} {path} ({error.strerror}): check the path and its permissions") from None


def read_secret(path: Path, what: str) -> str:
    """The first line of a file that only we can read; UsageError."""
    check(path, what)
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_SECRET_BYTES).decode()
    except OSError as error:
        raise _unreadable(path, what, error) from None
    except UnicodeDecodeError:
        raise UsageError(f"{what} {path} is not text in UTF-8: write it as one line") from None
    secret = text.partition("\n")[0].removesuffix("\r")
    if not secret:
        raise UsageError(f"{what} {path} has an empty first line: write it as one line")
    return secret


def _is_credential(path: Path) -> bool:
    """systemd guards that folder itself, by an ACL whose mask shows as permissions of the group."""
    folder = os.environ.get(CREDENTIALS)
    return bool(folder) and path.parent == Path(str(folder))


def _unreadable(path: Path, what: str, error: OSError) -> UsageError:
    return UsageError(f"can't read {what} {path} ({error.strerror}): check the path, and let this user alone read it")
