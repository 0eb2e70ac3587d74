"""HistoryFiles: the records of all rounds on the aggregator's disk, in files of JSON lines whose sizes are bounded.

    history.jsonl             the newest rounds
    history.1.jsonl, ...      earlier ones; the number rises
    history.sums.jsonl        yet earlier ones, without what a record has of each device
    history.sums.old.jsonl    and those before them

A record is appended and durable before the next round opens; nothing is rewritten for it, and nothing is read but the
end of the newest file. When history.jsonl has reached its size, it gets a number. When all parts together are too long,
the records of the oldest move to the sums, in 1/100 of the bytes in a fleet of thousands. The sums are two files, of
which the older one is replaced. So all files together stay below `max_bytes`, plus one record.

A kill may leave the last line unfinished, or records in both the oldest part and the sums: round numbers tell.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from .atomic import sync_folder, write_atomically
from .history_record import RoundRecord
from .private_files import opener, tighten

NEWEST = "history.jsonl"
PART = 1 / 16  # of `max_bytes`: the length of one part
SUMS = 1 / 8  # of `max_bytes`: the length of one of the two files of sums
BLOCK_BYTES = 2**16
LONGEST_LINE = 2**26
log = logging.getLogger("edgefl.aggregator")


def iter_records(path: Path) -> Iterator[RoundRecord]:
    """The records of one file, one in memory at a time, without a last line that is still being written. A damaged line
    is left out, and the log says so; nothing if there is no file."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            record = _decoded(line)
            if record is None:
                log.error("line %d of %s is damaged: it is left out", number, path)
            else:
                yield record


def read_records(path: Path) -> list[RoundRecord]:
    """The records of one file, all in memory."""
    return list(iter_records(path))


def last_record(path: Path) -> RoundRecord | None:
    """The last record of a file that can be decoded; None if there is no such record. Reads the file from its end."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for line in _lines_backwards(file.fileno()):
            if (record := _decoded(line)) is not None:
                return record
    return None


def _decoded(line: bytes) -> RoundRecord | None:
    try:
        return msgspec.json.decode(line, type=RoundRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _lines_backwards(number: int) -> Iterator[bytes]:
    """The lines of an open file, the last one first. A line that is too long to be a record loses its end."""
    end, rest = os.fstat(number).st_size, b""
    while end:
        begin = max(0, end - BLOCK_BYTES)
        block, end = os.pread(number, end - begin, begin), begin
        first, *lines = block.split(b"\n")
        if lines:
            lines[-1] += rest
            yield from reversed(lines)
            rest = first
        else:
            rest = (first + rest)[:LONGEST_LINE]
    yield rest


class NewRecords:
    """The newest records of a folder, while another process appends to its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inode = self._read_bytes = 0  # of the file that is being read

    def __iter__(self) -> Iterator[RoundRecord]:
        """Those that have come since the last call."""
        newest = self._folder / NEWEST
        inode = newest.stat().st_ino if newest.exists() else 0
        if self._inode not in (0, inode):  # that file has a number now
            for part in self._folder.glob("history.*.jsonl"):
                if part.stat().st_ino == self._inode:
                    yield from self._read(part)
            self._read_bytes = 0
        self._inode = inode
        yield from self._read(newest)

    def _read(self, path: Path) -> Iterator[RoundRecord]:
        with suppress(FileNotFoundError), open(path, "rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read_bytes += len(line)
                if (record := _decoded(line)) is not None:
                    yield record


class HistoryFiles:
    """The files in `folder`, for the process that appends to them, and for readers. Raises OSError."""

    def __init__(self, folder: Path, max_bytes: float = math.inf) -> None:
        self._folder = folder
        self._newest = folder / NEWEST
        self._sums, self._old_sums = folder / "history.sums.jsonl", folder / "history.sums.old.jsonl"
        self.keep(max_bytes)

    def keep(self, max_bytes: float) -> None:
        """Keep so many bytes from the next record on."""
        self._part_bytes, self._sums_bytes = max_bytes * PART, max_bytes * SUMS
        self._parts_bytes = max_bytes * (1 - 2 * SUMS)

    def last(self) -> RoundRecord | None:
        """The newest record."""
        newest_first = [self._newest, *(path for _, path in reversed(self._parts())), self._sums, self._old_sums]
        return next((record for path in newest_first if (record := last_record(path)) is not None), None)

    def records(self) -> Iterator[RoundRecord]:
        """All records, in order, one in memory at a time."""
        last = 0
        for path in [self._old_sums, self._sums, *(path for _, path in self._parts()), self._newest]:
            for record in iter_records(path):
                if record.round > last:
                    last = record.round
                    yield record

    def mend(self, records: Iterable[RoundRecord]) -> None:
        """Cut an unfinished last line off, and append those of `records` that come after the newest record: after a
        kill the files may be behind the database. Files of before that others can read are theirs no more."""
        for path in self._folder.glob("history*.jsonl"):
            tighten(path)
        _cut(self._newest)
        last = self.last()
        for record in records:
            if last is None or record.round > last.round:
                self.append(record)

    def append(self, record: RoundRecord) -> None:
        """Add the newest record; durable when this returns."""
        with open(self._newest, "ab", opener=opener) as file:
            _append(file.fileno(), [record])
            size = os.fstat(file.fileno()).st_size
        if size > self._part_bytes:
            parts = self._parts()
            number = parts[-1][0] + 1 if parts else 1
            self._newest.rename(self._folder / f"history.{number}.jsonl")
            sync_folder(self._folder)
            self._make_room()

    def forget(self, device: str) -> None:
        """Cut the device out of all records; each file is replaced whole, and its blocks on the disk are not erased."""
        name = device.encode()
        for path in [self._old_sums, self._sums, *(path for _, path in self._parts()), self._newest]:
            if path.exists() and any(name in line for line in _lines(path)):
                lines = (_without(line, device) if name in line else line for line in _lines(path))
                write_atomically(path, lines, mode=0o600)

    def _parts(self) -> list[tuple[int, Path]]:
        """The numbered parts, oldest first."""
        found = ((path.name.split(".")[1], path) for path in self._folder.glob("history.*.jsonl"))
        return sorted((int(number), path) for number, path in found if number.isdecimal())

    def _make_room(self) -> None:
        parts = [path for _, path in self._parts()]
        while parts and sum(path.stat().st_size for path in parts) > self._parts_bytes - self._part_bytes:
            self._sum_up(parts.pop(0))

    def _sum_up(self, part: Path) -> None:
        """Move the records of this part to the sums."""
        _cut(self._sums)
        last = last_record(self._sums) or last_record(self._old_sums)
        seen = 0 if last is None else last.round
        with open(self._sums, "ab", opener=opener) as file:
            _append(file.fileno(), (r.without_detail() for r in iter_records(part) if r.round > seen))
            size = os.fstat(file.fileno()).st_size
        if size > self._sums_bytes:
            self._sums.replace(self._old_sums)
        sync_folder(self._folder)
        part.unlink()


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from file


def _without(line: bytes, device: str) -> bytes:
    record = _decoded(line)
    return line if record is None else msgspec.json.encode(record.without_device(device)) + b"\n"


def _cut(path: Path) -> None:
    """Cut off an unfinished last line."""
    with suppress(FileNotFoundError), open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        torn = next(_lines_backwards(file.fileno()), b"")
        file.truncate(size - len(torn))


def _append(number: int, records: Iterable[RoundRecord]) -> None:
    """Write records at the end of an open file; durable when this returns."""
    with open(number, "ab", closefd=False) as file:
        for record in records:
            file.write(msgspec.json.encode(record) + b"\n")
    os.fsync(number)
