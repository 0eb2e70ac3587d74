"""HistoryView: all rounds so far, for the dashboard's threads, while the aggregator's thread adds the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from edgefl.board.rounds import Past
from edgefl.history_record import RoundRecord

T = TypeVar("T")


class HistoryView:
    """Any thread may call any method."""

    def __init__(self) -> None:
        self._past = Past()
        self._lock = threading.Lock()
        self._early: list[RoundRecord] | None = []  # rounds that end while history is read; None afterwards

    def add(self, record: RoundRecord) -> None:
        """A round is over."""
        with self._lock:
            if self._early is None:
                self._past.add(record)
            else:
                self._early.append(record)

    def forget(self, device: str) -> None:
        """The device was cut out of the records."""
        with self._lock:
            self._past.forget(device)
            if self._early is not None:
                self._early = [record.without_device(device) for record in self._early]

    def read(self, records: Iterable[RoundRecord]) -> None:
        """Add the rounds that were over before; if they can't be read, the newer ones are there all the same."""
        try:
            for record in records:
                with self._lock:
                    self._past.add(record)
        finally:
            with self._lock:
                for record in self._early or []:
                    self._past.add(record)
                self._early = None

    @property
    def is_whole(self) -> bool:
        """Whether the rounds before this start have been read."""
        return self._early is None

    def look(self, at: Callable[[Past], T]) -> T:
        """What `at` returns; it must return copies."""
        with self._lock:
            return at(self._past)
