"""Slots as a session hands them to a disk."""

from __future__ import annotations

from edgefl._core import crc32c
from edgefl.device.slots import Slot


def slot(blob: bytes, round: int, owner: str = "m" * 16) -> Slot:
    return Slot(owner, round, blob, crc32c(blob))


def residual(blob: bytes | None, round: int, owner: str = "m" * 16) -> dict[str, Slot]:
    """The slots of an update under error feedback; none without a blob."""
    return {} if blob is None else {"residual": slot(blob, round, owner)}
