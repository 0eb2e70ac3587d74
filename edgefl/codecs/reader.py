"""Reads a payload's parts, one after another. A payload that is too short is a CodecError."""

from __future__ import annotations

from struct import Struct
from typing import Any

from ..errors import CodecError


class Reader:
    """`rest` is what has not been read yet."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.rest = memoryview(data)

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        taken = self.rest[: self._check(size)]
        self.rest = self.rest[size:]
        return taken

    def take_last(self, size: int) -> memoryview:
        """The last `size` bytes."""
        end = len(self.rest) - self._check(size)
        taken = self.rest[end:]
        self.rest = self.rest[:end]
        return taken

    def unpack(self, form: Struct) -> tuple[Any, ...]:
        """The numbers that `form` describes."""
        return form.unpack(self.take(form.size))

    def _check(self, size: int) -> int:
        if size > len(self.rest):
            raise CodecError(f"payload is cut off, {len(self.rest)} bytes where {size} should follow: dropped")
        return size
