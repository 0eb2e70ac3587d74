"""Seeds: every random choice of a run comes from the run's own seed and the name of what it is for."""

from __future__ import annotations

from ..digests import sha256


def derived_seed(*parts: object) -> int:
    """63 bits drawn from what `parts` say: the same on every machine."""
    digest = sha256("\n".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
