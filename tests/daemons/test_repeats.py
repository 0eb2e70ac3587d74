"""Warnings that repeat: one line, and a count; the log grows by minutes, not by messages."""

from __future__ import annotations

import io
import logging
import threading
import tracemalloc
from collections.abc import Iterator

import pytest
from machines import TOPICS, feed, make_coordinator

from edgefl.coordinator.updates.noise import REFUSALS
from edgefl.hosting import log_lines, repeats
from edgefl.hosting.log_lines import TextLines
from edgefl.hosting.repeats import MOST_KINDS, WINDOW_S, Repeats
from edgefl.machine import Note, Received


class Log:
    """A logger whose lines are in memory; `now` is its clock."""

    def __init__(self, name: str) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.repeats = Repeats(self.handler.emit, lambda: self.now)
        self.handler.addFilter(self.repeats)
        self.log = logging.getLogger(name)
        self.log.propagate = False
        self.log.setLevel(logging.DEBUG)
        self.log.addHandler(self.handler)

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    log = Log(f"test.{request.node.name}")
    yield log
    log.log.removeHandler(log.handler)


def test_equal_warnings_are_one_line_and_a_count_a_minute(log: Log) -> None:
    for _ in range(352):
        log.log.warning("the broker said no")
    assert log.lines() == ["WARNING the broker said no"]
    log.now = WINDOW_S
    log.log.info("something else")
    counted = "WARNING the broker said no (and 351 more like this in 60 s)"
    assert log.lines()[1:] == [counted, "INFO something else"]
    log.log.warning("the broker said no")
    assert len(log.lines()) == 3, "it goes on being counted"
    log.now = 3 * WINDOW_S
    log.log.info("something else")
    assert log.lines()[3] == "WARNING the broker said no (and 1 more like this in 120 s)"
    log.now = 5 * WINDOW_S
    log.log.warning("the broker said no")
    assert log.lines()[-1] == "WARNING the broker said no", "after a quiet minute it is news"


def test_numbers_may_differ_and_words_may_not(log: Log) -> None:
    for delay in (1.5, 2.5):
        log.log.warning("cannot reach %s; trying again in %.1f s", "a:1883", delay)
    log.log.warning("cannot reach %s; trying again in %.1f s", "b:1883", 1.0)
    log.log.error("cannot reach %s; trying again in %.1f s", "b:1883", 1.0)
    assert [line.split()[0] + line.split()[3] for line in log.lines()] == [
        "WARNINGa:1883;", "WARNINGb:1883;", "ERRORb:1883;"
    ]  # fmt: skip


def test_what_is_below_a_warning_is_always_written(log: Log) -> None:
    for _ in range(3):
        log.log.info("round 1 committed")
    assert len(log.lines()) == 3


def test_a_signal_that_comes_while_a_line_is_counted_does_not_wait_for_that(log: Log) -> None:
    """Its handler logs that the program stops, on the thread that it has interrupted: it would wait for itself."""
    handler = threading.Thread(target=log.log.info, args=("SIGTERM: stopping",), daemon=True)
    with log.repeats._lock:
        handler.start()
        handler.join(5.0)
        assert not handler.is_alive()
    assert log.lines() == ["INFO SIGTERM: stopping"]


def test_the_end_of_the_program_tells_what_was_counted(log: Log) -> None:
    log.log.warning("once")
    for _ in range(3):
        log.log.warning("again")
    log.repeats.flush()
    log.repeats.flush()
    assert log.lines() == ["WARNING once", "WARNING again", "WARNING again (and 2 more like this in 0 s)"]


def test_i13_a_device_that_sends_rubbish_writes_lines_by_the_minute(log: Log) -> None:
    """12,500 statuses in 25 s were 2 MB of log."""
    machine = make_coordinator()
    for n in range(12_500):
        log.now = n * 25 / 12_500
        name = "dev-b" if n == 7000 else "dev-a"
        for note in feed(machine, Received(TOPICS.status(name), b'{"state": %d}' % n)):
            assert isinstance(note, Note)
            log.log.warning(note.text, extra={"kind": note.kind})
    log.repeats.flush()
    assert machine.dropped == {"dev-a": REFUSALS + 1, "dev-b": 1}, "a device that is muted is not heard"
    first, muted, other, more = log.lines()
    assert "message number 1 dropped from dev-a" in first and "dev-a is muted" in muted
    assert "dropped from dev-b" in other and f"and {REFUSALS} more like this" in more
    assert len(log.stream.getvalue()) < 1000


def test_i13_what_is_remembered_of_lines_is_bounded(log: Log) -> None:
    log.log.removeHandler(log.handler)
    record = logging.LogRecord("x", logging.WARNING, "", 0, "", None, None)
    tracemalloc.start()
    try:
        for n in range(20 * MOST_KINDS):
            record.msg, record.args = f"{n} %s " + "y" * 50_000, ("z" * 50_000,)
            assert log.repeats.filter(record)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(log.repeats._seen) == MOST_KINDS
    assert held < 2e6


def test_a_kind_that_is_forgotten_to_make_room_tells_its_count_first(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST_KINDS", 2)
    for text in ("a", "a", "b", "c"):
        log.log.warning(text)
    assert log.lines() == ["WARNING a", "WARNING b", "WARNING a (and 1 more like this in 0 s)", "WARNING c"]


@pytest.mark.parametrize("form", log_lines.FORMATS)
def test_both_daemons_count(form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    flushes = []
    monkeypatch.setattr(repeats.atexit, "register", flushes.append)
    log_lines.log_to_stderr("info", form)
    for _ in range(9):
        logging.getLogger("edgefl").warning("again")
    for flush in flushes:
        flush()
    first, second = capsys.readouterr().err.splitlines()
    assert "again" in first and "(and 8 more like this in 0 s)" in second
    assert isinstance(root.handlers[0].formatter, TextLines) == (form == "text")
