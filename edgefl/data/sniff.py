"""How a CSV file seems to be written: its encoding, delimiter and decimal sign. For `edgefl data stats` and
`edgefl new`: a device reads a file as its SPEC says, and never guesses."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from ..errors import DataError
from .cells import COMMA_NUMBER
from .csv_file import DELIMITERS, opened

HEAD = 2**20  # bytes
ROWS = 1000
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8"}


def dialect(path: Path, options: Mapping[str, str]) -> dict[str, str]:
    """The options that the file seems to need beside those that are given."""
    found: dict[str, str] = {}
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        text = f"can't read {path}: {error.strerror}"
        raise DataError(f"{text}: check the path and its permissions", text) from None
    if "encoding" not in options and (encoding := _encoding(head)) != "utf-8":
        found["encoding"] = encoding
    encoding = options.get("encoding", found.get("encoding", "utf-8"))
    first = head.decode(encoding, "replace").partition("\n")[0]
    if "delimiter" not in options and (delimiter := _delimiter(first)) != ",":
        found["delimiter"] = DELIMITERS[delimiter]
    if "decimal" not in options and "thousands" not in options:
        found |= _decimal(path, {**options, **found})
    return found


def _encoding(head: bytes) -> str:
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" in head[:4096]:
        return "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a character that the head cuts in two
            return "cp1252" if any(0x80 <= byte < 0xA0 for byte in head) else "latin-1"
    return "utf-8"


def _delimiter(first: str) -> str:
    return max(DELIMITERS, key=lambda mark: (first.count(mark), mark == ","))


def _decimal(path: Path, options: Mapping[str, str]) -> dict[str, str]:
    """decimal=, if more cells than not are numbers with a comma, in the column that has most of them."""
    commas: dict[int, int] = {}
    rows = 0
    try:
        with opened(path, options) as (_, lines, _):
            for _, cells in islice(lines, ROWS):
                rows += 1
                for column, cell in enumerate(cells):
                    commas[column] = commas.get(column, 0) + bool(COMMA_NUMBER.fullmatch(cell))
    except (DataError, csv.Error):
        return {}
    return {"decimal": ","} if rows and max(commas.values(), default=0) > rows / 2 else {}
