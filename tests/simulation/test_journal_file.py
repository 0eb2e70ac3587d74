"""The file of a journal: one simulation has it at a time, and no other program's file is taken for one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import edgefl
from edgefl.cli.main import main
from edgefl.errors import StoreError, UsageError
from edgefl.simulation.resume import journal as journals
from edgefl.simulation.resume import journal_file
from edgefl.simulation.resume.journal import Journal
from edgefl.simulation.resume.journal_file import APPLICATION, Busy

RUN = {"model": "mlp:64-10", "data": "digits", "devices": 8, "rounds": 3, "seed": 5}
COMMAND = ["simulate", "--model", "mlp:64-10", "--data", "digits", "--devices", "8"]


class Stopped(BaseException):
    """Nothing below catches it."""


def stop(record) -> None:
    raise Stopped


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(journals, "LEAST_S", 0.0)
    monkeypatch.setattr(journals, "SHARE", 1e9)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_another_program_s_file_is_refused_and_left_as_it_is(tmp_path, mode):
    file = tmp_path / "photos.db"
    with sqlite3.connect(file) as other:
        other.executescript(f"PRAGMA journal_mode={mode}; CREATE TABLE meta (id); INSERT INTO meta VALUES (1);")
    other.close()
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"photos\.db is another program's file"):
        edgefl.simulate(**RUN, resume=file)
    assert file.read_bytes() == before and names(tmp_path) == {"photos.db"}


def test_text_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("buy milk")
    with pytest.raises(StoreError, match="it is no database"):
        edgefl.simulate(**RUN, resume=file)
    assert file.read_text() == "buy milk" and names(tmp_path) == {"notes.txt"}


def test_the_file_says_whose_it_is(tmp_path):
    with pytest.raises(Stopped):
        edgefl.simulate(**RUN, resume=tmp_path / "run.db", on_round=stop)
    with sqlite3.connect(tmp_path / "run.db") as database:
        assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
    database.close()


def test_a_second_simulation_on_a_journal_is_refused(tmp_path):
    file, refused = tmp_path / "run.db", []

    def another(record) -> None:
        with pytest.raises(UsageError, match=r"another simulation is at work with .*run\.db") as caught:
            edgefl.simulate(**RUN, resume=file)
        refused.append(caught.type)

    whole = edgefl.simulate(**RUN)
    assert edgefl.simulate(**RUN, resume=file, on_round=another).final == whole.final
    assert refused == [Busy] * 3
    assert names(tmp_path) == set()


def test_the_lock_ends_with_its_process(tmp_path):
    file = tmp_path / "run.db"
    with pytest.raises(Stopped):
        edgefl.simulate(**RUN, resume=file, on_round=stop)
    held = (
        "import sys, time\n"
        "from edgefl.simulation.resume.journal import Journal\n"
        f"journal = Journal({str(file)!r}); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Busy):
        edgefl.simulate(**RUN, resume=file)
    with pytest.raises(Busy):
        journal_file.remove(file)
    process.kill()
    process.wait()
    process.stdout.close()
    assert edgefl.simulate(**RUN, resume=file).final == edgefl.simulate(**RUN).final


def test_a_journal_that_was_refused_can_be_tried_again(tmp_path):
    file = tmp_path / "run.db"
    with pytest.raises(Stopped):
        edgefl.simulate(**RUN, resume=file, on_round=stop)
    with pytest.raises(UsageError, match="another settings") as caught:
        edgefl.simulate(**RUN, lr=0.3, resume=file)
    assert caught.tb is not None  # as a notebook keeps it, with all that it refers to
    assert edgefl.simulate(**RUN, resume=file).final == edgefl.simulate(**RUN).final


def made(file: Path, sql: str) -> None:
    """Change a journal behind its back."""
    with sqlite3.connect(file) as database:
        database.executescript(sql)
    database.close()


def test_a_full_disk_is_told_in_a_sentence_when_a_run_begins(tmp_path):
    file = tmp_path / "run.db"
    Journal(file).close()
    made(file, "CREATE TRIGGER full BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'disk is full'); END;")
    with pytest.raises(StoreError, match=r"can't use .*run\.db \(disk is full\)"):
        edgefl.simulate(**RUN, resume=file)


def test_a_kill_while_a_run_begins_leaves_a_journal_that_can_be_used(tmp_path):
    """What the run is and the journal's format are written together, or neither is."""
    file = tmp_path / "run.db"
    Journal(file).close()
    made(file, "CREATE TRIGGER late BEFORE INSERT ON meta WHEN NEW.key = 'format' BEGIN SELECT RAISE(ABORT, ''); END;")
    with pytest.raises(StoreError):
        edgefl.simulate(**RUN, resume=file)
    made(file, "DROP TRIGGER late")
    assert edgefl.simulate(**RUN, resume=file).final == edgefl.simulate(**RUN).final


def test_a_damaged_journal_is_told_in_a_sentence_where_its_slots_are_read(tmp_path):
    file = tmp_path / "run.db"
    with pytest.raises(Stopped):
        edgefl.simulate(**RUN, resume=file, on_round=stop)
    made(file, "DROP TABLE held")
    with pytest.raises(StoreError, match="no such table: held"):
        edgefl.simulate(**RUN, resume=file)


def test_force_does_not_replace_a_run_that_is_under_way(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    journal = Journal(tmp_path / "run" / "resume.db")
    assert main([*COMMAND, "--rounds", "1", "--out", str(tmp_path / "run"), "--force"]) == 2
    assert "another simulation is at work" in capsys.readouterr().err
    assert names(tmp_path / "run") >= {"resume.db"}
    journal.close()
    assert main([*COMMAND, "--rounds", "1", "--out", str(tmp_path / "run"), "--force"]) == 0


def test_a_file_that_was_removed_before_the_lock_was_had_is_made_anew(tmp_path, monkeypatch):
    """A run ends, and removes its file, just when another opens it."""
    file, removed = tmp_path / "run.db", []
    lock = journal_file.fcntl.flock

    def late(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        if not removed:
            removed.append(file.unlink())

    monkeypatch.setattr(journal_file.fcntl, "flock", late)
    journal = Journal(file)
    with pytest.raises(Busy):
        Journal(file)
    journal.close()


def test_a_long_run_is_resumed_a_result_at_a_time(tmp_path):
    """Thirty megabytes of updates are read again, never more than a few at once."""
    long = RUN | {"model": "mlp:64-256-10", "codec": "raw32", "devices": 10, "rounds": 40, "data": "digits"}
    file = tmp_path / "run.db"

    def end(record) -> None:
        if record.round == 39:
            raise Stopped

    with pytest.raises(Stopped):
        edgefl.simulate(**long, resume=file, on_round=end, workers=1)
    size = file.stat().st_size
    assert size > 20e6
    usual, resumed = peak_of(**long | {"rounds": 3}), peak_of(**long, resume=file)
    assert resumed - usual < size / 10


def peak_of(**options) -> int:
    """The most bytes that a run had at once, of those that Python gives out."""
    tracemalloc.start()
    try:
        edgefl.simulate(**options, workers=1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
