"""Sampler: from sensors' messages to rows. The clock is the caller's; no I/O.

A row has the newest value of each column. Values that are too old are blanks, and there is no row while nothing comes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from edgefl.data.cells import is_blank, plain_number

LONGEST = 65536  # bytes of a message
LONGEST_TEXT = 64  # characters of a cell

Cell: TypeAlias = float | str | None


class Sampler:
    """`sources`: each column's topic, and the path to its field. `unread` counts messages without a value for us."""

    def __init__(self, sources: Mapping[str, tuple[str, tuple[str, ...]]], stale_s: float) -> None:
        self._readers: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for column, (topic, path) in enumerate(sources.values()):
            self._readers.setdefault(topic, []).append((column, path))
        self._stale_s = stale_s
        self._values: list[Cell] = [None] * len(sources)
        self._came = [-math.inf] * len(sources)
        self._news = False
        self.unread = 0

    @property
    def topics(self) -> list[str]:
        return list(self._readers)

    def hear(self, topic: str, payload: bytes, now: float) -> bool:
        """A message; whether it has a value for a column."""
        found = False
        document: Any = None
        for column, path in self._readers.get(topic, ()):
            if document is None and path:
                document = _document(payload)
            cell = _cell(_at(document, path)) if path else _plain(payload)
            if cell is not None:
                self._values[column], self._came[column], found = cell, now, True
        self.unread += not found
        self._news |= found
        return found

    def row(self, now: float) -> list[Cell] | None:
        """A row of the newest values; None if nothing has come since the last one."""
        if not self._news:
            return None
        self._news = False
        oldest = now - self._stale_s
        return [value if came >= oldest else None for value, came in zip(self._values, self._came, strict=True)]


def _document(payload: bytes) -> Any:
    """The JSON object of a message; {} if it holds no object."""
    try:
        found = msgspec.json.decode(payload) if len(payload) <= LONGEST else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _plain(payload: bytes) -> Cell:
    """The value of a message that is no JSON object."""
    if len(payload) > LONGEST:
        return None
    text = payload.decode("utf-8", "replace").strip()
    return _cell(text.strip('"'))


def _cell(value: Any) -> Cell:
    """A number or a short text; None for anything else, and for what is not finite."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        number = plain_number(value)
        return number if math.isfinite(number) else None
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        float(value)
    except ValueError:
        return None if is_blank(value) else value.strip()[:LONGEST_TEXT]
    number = plain_number(value)
    return number if math.isfinite(number) else None
