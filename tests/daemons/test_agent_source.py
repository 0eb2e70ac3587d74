"""The agent's data: read once, and again when it has changed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from edgefl_agent.source import Source


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("x,y\n1,2\n")
    source = Source(f"csv:{path}?target=y")
    first = source.read()
    assert source.read() is first
    path.write_text("x,y\n1,3\n")
    os.utime(path, ns=(1, 1))
    assert source.read().y_train.tolist() == [3.0]


def test_examples_that_another_thread_forgets_while_they_are_read_are_read_all_the_same(tmp_path: Path) -> None:
    """A device that is paused gives their memory back, and may be counting them just then."""
    (tmp_path / "data.csv").write_text("x,y\n1,2\n")
    source = Source(f"csv:{tmp_path / 'data.csv'}?target=y")

    class Forgetful(type(source)):  # type: ignore[misc]
        @property
        def stamp(self) -> int:
            return 0

        @stamp.setter
        def stamp(self, value: int) -> None:
            self.forget()

    source.__class__ = Forgetful
    assert source.count() == 1
    assert source.read().y_train.tolist() == [2.0]


def test_rows_that_sqlite_keeps_in_its_log_are_seen(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "data.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE t (x, y)")
    database.execute("INSERT INTO t VALUES (1, 2)")
    source = Source(f"sqlite:{tmp_path / 'data.db'}?query=SELECT x, y FROM t&target=y")
    assert len(source.read().x_train) == 1
    database.execute("INSERT INTO t VALUES (3, 4)")
    assert len(source.read().x_train) == 2
    database.close()
