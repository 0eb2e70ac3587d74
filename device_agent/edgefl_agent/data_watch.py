"""DataWatch: sees when the device's data change, for rounds that ask for new data only."""

from __future__ import annotations

from edgefl.device.events import DataStamp, Noticed

from .source import Source
from .worker import Worker

LOOK_S = 5.0  # between two looks at a file's time and size
TELL_S = 3600.0  # between two changes of the counts that are told
READ_S = 600.0  # between two calls of the owner's code, which alone can tell


class DataWatch:
    """`news` is called now and then."""

    def __init__(self, source: Source, worker: Worker) -> None:
        self._source, self._worker = source, worker
        self._look_at = self._read_at = self._tell_at = 0.0
        self._told = ""

    def news(self, now: float, known: int, *, wanted: bool) -> DataStamp | None:
        """The stamp that a file shows, if it is not the `known` one. If new data are `wanted`, the worker reads data
        that are no file, and posts what it has found."""
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_S
        stamp = self._source.look()
        if not stamp and wanted and now >= self._read_at:
            self._read_at = now + READ_S
            self._worker.look_at_data()
        return DataStamp(stamp) if stamp and stamp != known else None

    def notice(self, now: float) -> Noticed | None:
        """How many rows the newest examples lack, if that is news. A table that grows has other counts in each round:
        these are told now and then."""
        text = self._source.notice
        if text == self._told or (text and self._told and now < self._tell_at):
            return None
        self._told, self._tell_at = text, now + TELL_S
        return Noticed(text)
