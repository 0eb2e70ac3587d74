"""`sqlite:FILE?query=SELECT ...&target=COL`: the rows of one query, the database opened read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import existing_path, refuse_unknown
from .table import OPTIONS, read_table


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Run the query and read row by row, in its order; rows count from 1. Raises DataError and UsageError."""
    refuse_unknown(options, "sqlite", (*OPTIONS, "query"))
    query_of(options)
    path = existing_path(rest)
    with opened(path, options) as (header, rows):
        return read_table(path.name, "row", header, rows, options)


@contextmanager
def opened(path: Path, options: Mapping[str, str]) -> Iterator[tuple[list[str], Iterator[tuple[int, Sequence[Any]]]]]:
    """The names of the query's columns, and its numbered rows."""
    query = query_of(options)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.text_factory = _text
            cursor = database.execute(query)
            if cursor.description is None:
                raise UsageError(f"{query!r} returns no rows: give a SELECT")
            yield [column[0] for column in cursor.description], enumerate(cursor, 1)
    except (sqlite3.Error, sqlite3.Warning) as error:  # Warning: two statements, up to Python 3.11
        text = f"{path.name}: {error}: check the query, and that this is a SQLite database"
        raise DataError(text, f"{path.name}: the query failed ({type(error).__name__})") from None


def query_of(options: Mapping[str, str]) -> str:
    """The query; UsageError without one."""
    if "query" not in options:
        raise UsageError("sqlite data needs query=SELECT ...: add it to the SPEC")
    return options["query"]


def _text(raw: bytes) -> str:
    """A cell's text; bytes that are no UTF-8 make the cell a bad one, not the query."""
    return raw.decode("utf-8", "surrogateescape")
