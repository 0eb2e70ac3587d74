"""Tail: the records of a history.jsonl that grows, each line read once."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgefl.history import RoundRecord


class Tail:
    """`records` has all that were read, or the newest `keep`."""

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.records: list[RoundRecord] = []
        self._path, self._keep = path, keep
        self._at = 0
        self._lines = 0

    def read(self) -> list[RoundRecord]:
        """All records so far."""
        self.skip()
        return self.records

    def skip(self) -> int:
        """Read what is new; returns how many records there are so far."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return 0
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        lines = whole.splitlines()
        self._lines += len(lines)
        wanted = lines if self._keep is None else lines[-self._keep :]
        self.records += [msgspec.json.decode(line, type=RoundRecord) for line in wanted]
        if self._keep is not None:
            del self.records[: -self._keep]
        return self._lines
