"""`csv:FILE?target=COL`: a text table whose first line names the columns (RFC 4180; UTF-8 unless encoding= says else).

A line that is not CSV, or has bytes that are no text, is a bad row like others. Lines are read one at a time.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import existing_path, refuse_unknown
from .table import OPTIONS, Malformed, Table

OWN_OPTIONS = ("delimiter", "encoding")
DELIMITERS = {",": ",", ";": ";", "\t": "tab", "|": "|"}
MAX_LINE = 2**20  # characters
WIDE = ("utf-16", "utf-32")


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Read the file line by line; empty lines are skipped. Raises DataError with file, line and column."""
    refuse_unknown(options, "csv", (*OPTIONS, *OWN_OPTIONS))
    table = Table(options, "line")
    feed(table, existing_path(rest), options)
    return table.finish()


def feed(table: Table, path: Path, options: Mapping[str, str]) -> None:
    """Add the lines of one file to the table; DataError, UsageError."""
    with opened(path, options) as (header, rows, hint):
        table.begin(path.name, header, hint)
        table.add_all(rows)


@contextmanager
def opened(
    path: Path, options: Mapping[str, str]
) -> Iterator[tuple[list[str], Iterator[tuple[int, Sequence[Any]]], str]]:
    """The names of the columns, the (line, cells) below them, and what may be wrong with the delimiter."""
    delimiter, encoding = _delimiter(options), encoding_of(options)
    try:
        with open(path, newline="", encoding=encoding, errors=_on_bad_bytes(encoding)) as file:
            text = _Lines(file, path.name)
            lines = csv.reader(text, delimiter=delimiter, strict=True)
            try:
                header = [name.strip() for name in next(lines, [])]
            except csv.Error as error:
                place = f"{path.name}, line {lines.line_num}"
                raise DataError(f"{place}: {error}: repair the line", f"{place}: not a line of a CSV file") from None
            if not header:
                empty = f"{path.name} is empty or begins with an empty line"
                raise DataError(f"{empty}: put column names there", empty)
            if "\0" in text.first:
                wide = f"{path.name} is not {options.get('encoding', 'UTF-8')} text"
                raise DataError(f"{wide}: add encoding=utf-16", f"{wide}: add encoding=utf-16")
            yield header, _rows(lines), _hint(text.first, delimiter, options)
    except OSError as error:
        text_ = f"can't read {path}: {error.strerror}"
        raise DataError(f"{text_}: check the path and its permissions", text_) from None
    except UnicodeError as error:  # of a wide encoding, without the mark that tells the order of its bytes
        text_ = f"{path.name} is not {encoding} text"
        raise DataError(f"{text_} ({error}): write encoding=latin-1, utf-16 or what it is", text_) from None


class _Lines:
    """The lines of a file, none longer than MAX_LINE. `first`: the first one."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self.first = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        if len(line) == MAX_LINE:
            text = f"{self._name} has a line of more than {MAX_LINE} characters"
            raise DataError(f"{text}: is it a CSV file?", text)
        self.first = self.first or line
        return line


def _rows(lines: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    while True:
        try:
            for cells in lines:
                if cells:
                    yield lines.line_num, cells
            return
        except csv.Error as error:  # the reader goes on with the next line
            yield lines.line_num, Malformed(error)


def _delimiter(options: Mapping[str, str]) -> str:
    delimiter = {"tab": "\t"}.get(options.get("delimiter", ","), options.get("delimiter", ","))
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UsageError(f"data option delimiter={delimiter}: give one character, or 'tab'")
    return delimiter


def encoding_of(options: Mapping[str, str]) -> str:
    """The encoding of the text, in Python's words; UsageError."""
    given = options.get("encoding", "utf-8")
    try:
        found = codecs.lookup(given)
        if not isinstance("".encode(found.name), bytes):
            raise LookupError
    except (LookupError, ValueError, TypeError):
        raise UsageError(f"data option encoding={given}: use utf-8, utf-16, latin-1, cp1252 or another one") from None
    return "utf-8-sig" if found.name == "utf-8" else found.name


def _on_bad_bytes(encoding: str) -> str:
    """How bytes that are no text come into a cell: as marks that cells.py knows."""
    return "replace" if encoding.startswith(WIDE) else "surrogateescape"


def _hint(first: str, delimiter: str, options: Mapping[str, str]) -> str:
    """Which delimiter the first line may have; "" where the given one occurs in it."""
    if "delimiter" in options or delimiter in first:
        return ""
    count, likely = max((first.count(mark), name) for mark, name in DELIMITERS.items())
    return f"its first line has {count} times {likely!r} and no ',': add delimiter={likely}" if count else ""
