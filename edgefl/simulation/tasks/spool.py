"""Spool: large blobs that simulated devices keep, in memory as far as there is room, and else in one file.

A round of a thousand devices makes a thousand updates at the same virtual time, each of which its device keeps until
the round is over. The file has no name, and is as long as all that was ever kept at the same time.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from itertools import count
from typing import overload

from ...errors import StoreError
from ...protocol.envelope import Unwritten

PAGE = 64 * 1024
HEAD = 64  # bytes that are looked at often
ROOM = 256 * 2**20  # bytes in memory


class Spool:
    """`room`: the bytes that stay in memory; `page`: the unit of the file, and the least blob that is kept elsewhere.

    One thread adds blobs. They may be read, and let go, in any.
    """

    def __init__(self, room: int = ROOM, page: int = PAGE) -> None:
        self.page, self._room = page, room
        self._given: deque[int] = deque()  # room that blobs in memory have given back
        self._file: int | None = None
        self._free: list[int] = []  # pages
        self._pages = 0  # of the file
        self.marks = count(1)

    def keep(self, blob: bytes) -> bytes | Kept:
        """The blob, or what a session can measure and cut into parts as the blob."""
        return blob if len(blob) < self.page else Kept(self, blob)

    def close(self) -> None:
        """Nothing that is kept is read any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # For Kept

    def take_room(self, size: int) -> bool:
        """Whether so many bytes may stay in memory; `give_room` gives them back."""
        while self._given:
            self._room += self._given.popleft()
        if size > self._room:
            return False
        self._room -= size
        return True

    def give_room(self, size: int) -> None:
        self._given.append(size)

    def write(self, blob: bytes) -> list[int]:
        """The pages that the blob is in; `free` gives them back."""
        if self._file is None:
            with tempfile.TemporaryFile(prefix="edgefl-") as file:
                self._file = os.dup(file.fileno())
        view, pages = memoryview(blob), []
        for start in range(0, len(blob), self.page):
            if not self._free:
                self._free.append(self._pages)
                self._pages += 1
            pages.append(self._free.pop())
            self._write_page(view[start : start + self.page], pages[-1] * self.page)
        return pages

    def _write_page(self, data: memoryview, at: int) -> None:
        """All of it: a disk that is nearly full takes the first bytes, and refuses the others at the next call."""
        assert self._file is not None
        try:
            while data:
                done = os.pwrite(self._file, data, at)
                data, at = data[done:], at + done
        except OSError as error:
            raise StoreError(
                f"can't keep what simulated devices hold in {tempfile.gettempdir()} ({error.strerror}): make room "
                "there, or set TMPDIR to a folder with more"
            ) from None

    def read(self, page: int, start: int, stop: int) -> bytes:
        """These bytes of a page."""
        assert self._file is not None
        return os.pread(self._file, stop - start, page * self.page + start)

    def free(self, pages: list[int]) -> None:
        self._free.extend(pages)


class Kept(Unwritten):
    """A blob in a spool, until nothing refers to it."""

    __slots__ = ("_blob", "_head", "_pages", "_size", "_spool", "blob_id")

    def __init__(self, spool: Spool, blob: bytes) -> None:
        self._spool, self._size = spool, len(blob)
        self._head = blob[:HEAD]
        self.blob_id = next(spool.marks).to_bytes(8, "little")
        self._pages: list[int] = []
        self._blob = blob if spool.take_room(len(blob)) else b""
        if not self._blob:
            self._pages = spool.write(blob)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, piece: int) -> int: ...
    @overload
    def __getitem__(self, piece: slice) -> bytes | memoryview: ...
    def __getitem__(self, piece: int | slice) -> int | bytes | memoryview:
        if isinstance(piece, int):
            return self._head[piece] if 0 <= piece < HEAD else self.piece(piece, piece + 1)[0]
        start, stop, step = piece.indices(self._size)
        assert step == 1
        return self.piece(start, stop)

    def piece(self, start: int, stop: int) -> bytes | memoryview:
        if self._blob:
            whole = start == 0 and stop >= self._size
            return self._blob if whole else memoryview(self._blob)[start:stop]
        page, found = self._spool.page, []
        for number in range(start // page, -(-stop // page)):
            at = number * page
            found.append(self._spool.read(self._pages[number], max(start - at, 0), min(stop - at, page)))
        return b"".join(found)

    def __del__(self) -> None:
        if self._blob:
            self._spool.give_room(self._size)
        else:
            self._spool.free(self._pages)
