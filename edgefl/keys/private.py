"""Reading and writing the operator's private files, and the lock that lets one command at a time work on a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..atomic import write_atomically
from ..errors import ProtocolError, StoreError, UsageError
from ..private_files import OTHERS
from ..trust import ed25519

LOCK = "lock"
PRIVATE = 0o600


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """For one command at a time; UsageError if another one runs."""
    try:
        number = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE)
    except OSError as error:
        raise UsageError(f"can't use {path}: {error.strerror}: check the folder and its owner") from None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"{path} is in use by another `edgefl keys`: wait for its end") from None
    finally:
        os.close(number)


def read(path: Path) -> bytes:
    """The bytes of a file that must be there; UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: put a copy of it back from your backup") from None


def read_private(path: Path) -> bytes:
    """The bytes of a private key that only its owner can read; UsageError."""
    data = read(path)
    if path.stat().st_mode & OTHERS:
        raise UsageError(f"{path} can be read by others than its owner: chmod 600 {path}, and ask who has seen it")
    return data


def read_seed(path: Path) -> bytes:
    """The seed in a private file of one line of base64; UsageError."""
    try:
        return ed25519.from_text(read_private(path).decode().strip())
    except (UnicodeDecodeError, ProtocolError):
        raise UsageError(f"{path} is no key, one line of base64: put a copy of it back from your backup") from None


def key_line(key: bytes) -> bytes:
    """The file of a seed or of a public key."""
    return ed25519.to_text(key).encode() + b"\n"


def write_private(path: Path, data: bytes) -> None:
    """Replace a file, which only its owner can read; StoreError."""
    try:
        write_atomically(path, data, mode=PRIVATE)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: check the folder, its permissions and the space left") from None
