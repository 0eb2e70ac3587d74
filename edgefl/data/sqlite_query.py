"""`sqlite:FILE?query=SELECT ...&target=COL`: the rows of one query, the database opened read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

from ..errors import DataError, UsageError
from .dataset import Dataset
from .options import existing_path, refuse_unknown
from .table import OPTIONS, read_table


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Run the query and read row by row, in its order; rows count from 1. Raises DataError and UsageError."""
    refuse_unknown(options, "sqlite", (*OPTIONS, "query"))
    if "query" not in options:
        raise UsageError("sqlite data needs query=SELECT ...: add it to the SPEC")
    path = existing_path(rest)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            cursor = database.execute(options["query"])
            if cursor.description is None:
                raise UsageError(f"{options['query']!r} returns no rows: give a SELECT")
            header = [column[0] for column in cursor.description]
            return read_table(path.name, "row", header, enumerate(cursor, 1), options)
    except (sqlite3.Error, sqlite3.Warning) as error:  # Warning: two statements, up to Python 3.11
        text = f"{path.name}: {error}: check the query, and that this is a SQLite database"
        raise DataError(text, f"{path.name}: the query failed ({type(error).__name__})") from None
