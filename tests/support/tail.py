"""Tail: the records of an aggregator's history that grows, each line read once."""

from __future__ import annotations

from pathlib import Path

from edgefl.history_files import NewRecords
from edgefl.history_record import RoundRecord


class Tail:
    """`records` has all that were read, or the newest `keep`."""

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        self.records: list[RoundRecord] = []
        self._new, self._keep = NewRecords(folder), keep
        self._count = 0

    def read(self) -> list[RoundRecord]:
        """All records so far."""
        self.skip()
        return self.records

    def skip(self) -> int:
        """Read what is new; returns how many records there are so far."""
        for record in self._new:
            self._count += 1
            self.records.append(record)
            if self._keep is not None:
                del self.records[: -self._keep]
        return self._count
