"""A device whose data can't be used at the start: it goes on, says so, and takes part once they can be used."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import eventually
from daemons import Federation, blobs
from edgefl_agent import first_look
from edgefl_agent.first_look import LOOK_AGAIN_S, FirstLook
from edgefl_agent.source import Source

from edgefl.device.events import Unable
from edgefl.errors import UsageError


def write(path: Path, rows: str) -> None:
    path.write_text(f"x,y\n{rows}\n")
    os.utime(path, ns=(0, len(rows)))  # time stamps are coarse


def test_data_that_cant_be_used_are_looked_at_again_and_said_once(tmp_path: Path, caplog) -> None:
    path = tmp_path / "a.csv"
    look = FirstLook(Source(f"csv:{path}?target=y"))
    assert look.look(0.0) == Unable(f"its data can't be used: no data at '{path}'", "data")
    assert look.look(LOOK_AGAIN_S) is None, "said already"
    write(path, "1,\n1,2")
    assert look.look(1.5 * LOOK_AGAIN_S) is None, "not due"
    assert look.look(2 * LOOK_AGAIN_S) == Unable(
        "its data can't be used: a.csv, line 2, column 'y': not a finite number", "data"
    )
    assert look.look(3 * LOOK_AGAIN_S) is None
    assert (look.num_examples, len(caplog.messages)) == (0, 2)
    write(path, "1,3\n1,2\n4,4")
    assert look.look(4 * LOOK_AGAIN_S) == Unable("", num_examples=3)
    write(path, "broken")
    assert look.look(9 * LOOK_AGAIN_S) is None, "from now on each round reads them"


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "a.csv", "1,x")
    source = Source(f"csv:{tmp_path}/a.csv?target=y")
    look = FirstLook(source)
    assert look.look(0.0) is not None
    monkeypatch.setattr(source, "count", lambda: pytest.fail("read again"))
    assert look.look(100.0) is None


def test_a_data_source_that_hangs_at_the_start_is_told_and_does_not_stop_the_agent(monkeypatch) -> None:
    monkeypatch.setattr(first_look, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(first_look, "WAIT_S", 0.05)
    go, calls = threading.Event(), []

    class Hangs(Source):
        def count(self) -> int:
            calls.append(go.wait(20.0))
            return 7

    look = FirstLook(Hangs("python:some:code"))
    assert look.look(0.0) == Unable("its data source does not answer", "hung")
    assert look.look(1.0) is look.look(10 * LOOK_AGAIN_S) is None, "said already"
    go.set()
    until = time.monotonic() + 20
    while (news := look.look(11 * LOOK_AGAIN_S)) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert news == Unable("", num_examples=7) and calls == [True]


def test_a_wrong_spec_ends_the_agent(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "1,2")
    with pytest.raises(UsageError, match="add target=COL"):
        FirstLook(Source(f"csv:{tmp_path}/a.csv")).look(0.0)


def test_the_aggregators_log_names_a_device_whose_data_cant_be_used(
    embedded: object, federation: Callable[..., Federation], monkeypatch, caplog
) -> None:
    monkeypatch.setattr(first_look, "LOOK_AGAIN_S", 0.2)
    caplog.set_level(logging.INFO)
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    bad = fleet.folder / "bad.csv"
    bad.write_text("a,b,c,d,label\n1,2,,4,0\n")
    fleet.agent("pi-01", f"csv:{bad}?features=a,b,c,d&target=label&kind=classes")
    fleet.agent("pi-02")
    aggregator = fleet.aggregator(rounds={"rounds": 1, "deadline_s": 10.0, "min_reports": 2, "interval_s": 0})
    statuses = aggregator.host.machine.presence.statuses
    eventually(lambda: "pi-01" in statuses)
    assert (statuses["pi-01"].state, statuses["pi-01"].code) == ("trouble", "data")
    text = "pi-01: its data can't be used: bad.csv, line 2, column 'c': not a finite number"
    eventually(lambda: any(line.startswith("waiting: ") and text in line for line in caplog.messages))
    x, y = blobs(20, seed=3)
    rows = "\n".join(",".join(map(str, [*features, label])) for features, label in zip(x, y, strict=True))
    bad.write_text(f"a,b,c,d,label\n{rows}\n")
    assert aggregator.join(), "the device takes part once its data are repaired"
    (record,) = aggregator.host.history.rounds
    assert (record.devices, record.num_examples) == (["pi-01", "pi-02"], 80)
    assert statuses["pi-01"].num_examples == 20
