"""`csv:FILE?target=COL`: a text table whose first line names the columns (RFC 4180, UTF-8)."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import existing_path, refuse_unknown
from .table import OPTIONS, read_table


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Read the file line by line; empty lines are skipped. Raises DataError with file, line and column."""
    refuse_unknown(options, "csv", (*OPTIONS, "delimiter"))
    path = existing_path(rest)
    delimiter = {"tab": "\t"}.get(options.get("delimiter", ","), options.get("delimiter", ","))
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UsageError(f"data option delimiter={delimiter}: give one character, or 'tab'")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(lines, [])]
            if not header:
                text = f"{path.name} is empty or begins with an empty line"
                raise DataError(f"{text}: put column names there", text)
            numbered = ((lines.line_num, cells) for cells in lines if cells)
            return read_table(path.name, "line", header, numbered, options)
    except csv.Error as error:
        place = f"{path.name}, line {lines.line_num}"
        raise DataError(f"{place}: {error}: repair the line", f"{place}: not a line of a CSV file") from None
    except OSError as error:
        text = f"can't read {path}: {error.strerror}"
        raise DataError(f"{text}: check the path and its permissions", text) from None
    except UnicodeDecodeError as error:
        text = f"{path.name} is not UTF-8 text"
        raise DataError(f"{text} ({error.reason}): save it as UTF-8", text) from None
