"""Repeats: warnings that come again and again are one line and a count, so that no noise fills a disk.

A warning or error is written at once. Others of its kind are counted for WINDOW_S, then one line says how many there
were, and so on. Lines are of one kind if they were made from one template and the same words; numbers may differ. A
line whose text is made elsewhere, such as a machine's Note, may name its kind. Lines below a warning are all written.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

from msgspec import Struct

WINDOW_S = 60.0
MOST_KINDS = 500  # that are kept; the oldest is dropped first
LONGEST = 500  # characters that are kept of a line
Kind: TypeAlias = tuple[object, ...]


class _Seen(Struct):
    """A line that was written, and how many of its kind were not, since `began`."""

    logger: str
    level: int
    text: str
    began: float
    count: int = 0


class Repeats(logging.Filter):
    """A filter of one handler; `emit` writes a line past it. Any thread."""

    def __init__(self, emit: Callable[[logging.LogRecord], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._emit, self._clock = emit, clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[Kind, _Seen] = OrderedDict()  # by `began`

    def filter(self, record: logging.LogRecord) -> bool:
        now, low = self._clock(), record.levelno < logging.WARNING
        if not self._lock.acquire(blocking=not low):
            return True  # a signal's handler logs at this level, and may have interrupted the thread that has the lock
        try:
            said = self._over(now)
            wanted = low or self._is_new(record, now, said)
        finally:
            self._lock.release()
        self._write(said)
        return wanted

    def flush(self) -> None:
        """Write all counts: the program ends."""
        with self._lock:
            said = list(self._summaries(self._seen.values(), self._clock()))
            self._seen.clear()
        self._write(said)

    def _is_new(self, record: logging.LogRecord, now: float, said: list[logging.LogRecord]) -> bool:
        kind = _kind(record)
        if kind in self._seen:
            self._seen[kind].count += 1
            return False
        if len(self._seen) >= MOST_KINDS:
            said += self._summaries([self._seen.popitem(last=False)[1]], now)
        self._seen[kind] = _Seen(record.name, record.levelno, record.getMessage()[:LONGEST], now)
        return True

    def _over(self, now: float) -> list[logging.LogRecord]:
        """Lines about the windows that have ended; one without a repetition is dropped."""
        said: list[logging.LogRecord] = []
        while self._seen and now - next(iter(self._seen.values())).began >= WINDOW_S:
            kind, seen = self._seen.popitem(last=False)
            if seen.count:
                said += self._summaries([seen], now)
                self._seen[kind] = _Seen(seen.logger, seen.level, seen.text, now)
        return said

    def _summaries(self, seen: Iterable[_Seen], now: float) -> Iterable[logging.LogRecord]:
        for one in seen:
            if one.count:
                text = f"{one.text} (and {one.count} more like this in {now - one.began:.0f} s)"
                yield logging.LogRecord(one.logger, one.level, "", 0, text, None, None)

    def _write(self, records: Iterable[logging.LogRecord]) -> None:
        for record in records:
            self._emit(record)


def _kind(record: logging.LogRecord) -> Kind:
    words = record.args if isinstance(record.args, tuple) else ()
    template = str(getattr(record, "kind", "") or record.msg)
    return (record.name, record.levelno, template[:LONGEST], *(w[:LONGEST] for w in words if isinstance(w, str)))


def count_repeats(handler: logging.Handler) -> None:
    """Have `handler` count repetitions instead of writing them."""

    def emit(record: logging.LogRecord) -> None:
        handler.acquire()
        try:
            handler.emit(record)
        finally:
            handler.release()

    repeats = Repeats(emit)
    handler.addFilter(repeats)
    atexit.register(repeats.flush)
