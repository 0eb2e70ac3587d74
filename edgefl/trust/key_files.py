"""Key files: an Ed25519 seed or public key is one line of base64. UsageError names the file and what to do.

A private file that another user can read is refused: that user could sign. So is a public key that another user
can write: that user could put a root of its own there. An agent reads its keys by name from one folder, its
aggregator too, so a configuration names that folder only.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..atomic import write_atomically
from ..errors import ProtocolError, UsageError
from ..private_files import OTHERS
from .ed25519 import from_text, to_text

ROOT_PUBLIC = "root.pub"  # pinned by devices and by the aggregator
SIGNER_KEY, SIGNER_CERTIFICATE, ROSTER = "signer.key", "signer.json", "roster.json"  # the aggregator's
SIGNING_KEY = "signing.key"  # a device's, a helper's
BOX_KEY, HELPER_CERTIFICATE = "box.key", "helper.json"  # a helper's
WRITE = 0o022  # permissions that others must not have on a public key
MAX_FILE_BYTES = 64 * 2**20  # a roster has about 100 bytes a device


def helper_file(name: str) -> str:
    """In the aggregator's folder, what the root says of this helper: its HELPER_CERTIFICATE."""
    return f"helper-{name}.json"


def read_seed(path: Path) -> bytes:
    """The seed in a private file; UsageError if it is missing, unreadable, no seed, or readable by others."""
    return _read_key(path, private=True)


def read_public(path: Path) -> bytes:
    """The public key in a file; UsageError if it is missing, unreadable, or no key."""
    return _read_key(path, private=False)


def write_seed(path: Path, seed: bytes) -> None:
    """Create a private file that only its owner can read, whole or not at all; OSError if it exists."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "a key is there already", str(path))
    write_atomically(path, f"{to_text(seed)}\n".encode(), mode=0o600)


def read_file(path: Path, *, refused: int = 0) -> bytes:
    """The bytes of a file of the keys' folder; UsageError if it can't be read, or others have one of the `refused`
    permissions."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & refused:
                what, right = ("read", "600") if refused == OTHERS else ("changed", "644")
                raise UsageError(f"{path} can be {what} by other users: chmod {right} {path}")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}: {_advice(error)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path} is longer than {MAX_FILE_BYTES} bytes: `edgefl keys` wrote no such file")
    return data


def _advice(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "copy it from the folder that `edgefl keys` has written, or correct [keys] dir"
    return "let this user read it, and no other"


def _read_key(path: Path, *, private: bool) -> bytes:
    data = read_file(path, refused=OTHERS if private else WRITE)
    try:
        return from_text(data.decode("ascii").strip())
    except (UnicodeDecodeError, ProtocolError):
        raise UsageError(
            f"{path} is not a key, which is one line of base64: copy it again from the folder of `edgefl keys`"
        ) from None
