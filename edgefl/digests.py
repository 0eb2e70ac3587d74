"""SHA-256, without OpenSSL in a process that has no other use for it.

`import hashlib` loads OpenSSL for good, which is 3.5 MB, or a twelfth of an agent. CPython has a SHA-256 of its own
beside it, to which `hashlib` falls back. On one core it computes 330 MB/s where OpenSSL reaches 550, or 1,900 with the
processor's instructions for it; and before Python 3.12 no other thread runs meanwhile. So whatever is LARGE goes to
OpenSSL, and all else too once something has imported hashlib.

The digests are the same. A module that no device imports may use `hashlib` as usual.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import hashlib

try:
    from _sha2 import sha256 as _without_openssl  # Python 3.12 and later
except ImportError:
    try:
        from _sha256 import sha256 as _without_openssl
    except ImportError:  # a Python that is built without it
        _without_openssl = None

LARGE = 4_000_000  # bytes, which take 12 ms here and about 40 on a Raspberry Pi


def sha256(*blobs: Any) -> hashlib._Hash:
    """As `hashlib.sha256`, of objects with the buffer interface, one after another; more can be added by `update`."""
    digest = _new(sum(memoryview(blob).nbytes for blob in blobs))
    for blob in blobs:
        digest.update(blob)
    return digest


def _new(size: int) -> hashlib._Hash:
    if _without_openssl is not None and size <= LARGE and "_hashlib" not in sys.modules:
        made: hashlib._Hash = _without_openssl()
        return made
    import hashlib

    return hashlib.sha256()
