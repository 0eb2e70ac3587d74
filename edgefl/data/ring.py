"""`ring:FILE?target=COL`: the rows that `edgefl-agent record` keeps, the newest last, read while they are written.

`rows=` bounds how many of the newest are read. The column `time` is the time: windows are not cut across its gaps.
"""

from __future__ import annotations

from collections.abc import Mapping

from .dataset import Dataset
from .options import existing_path, refuse_unknown, whole_number
from .sqlite_query import opened
from .table import OPTIONS, read_table

ROWS = 100_000  # more take long on a small device, before each round


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Read the rows, in the order of their arrival. Raises DataError, UsageError."""
    refuse_unknown(options, "ring", (*OPTIONS, "rows"))
    path = existing_path(rest)
    with opened(path, {"query": query(options)}) as (header, rows):
        own = (cells[1:] for _, cells in rows)  # without the row's number
        return read_table(path.name, "row", header[1:], enumerate(own, 1), with_time(options))


def query(options: Mapping[str, str]) -> str:
    """The SELECT of the newest rows; UsageError."""
    rows = whole_number(options, "rows", 1) if "rows" in options else ROWS
    return f"SELECT * FROM (SELECT * FROM ring ORDER BY id DESC LIMIT {rows}) ORDER BY id"


def with_time(options: Mapping[str, str]) -> dict[str, str]:
    """The options of a table whose column `time` is the time."""
    return {"time": "time", **options}
