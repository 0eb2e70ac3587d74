"""Whether a machine's clock can be trusted, and when its state machine is told the time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import ROOT

from edgefl.hosting import wall_clock
from edgefl.hosting.wall_clock import RELEASED_S, TIME_ERROR, WallClock, is_trusted

NOW = RELEASED_S + 1e6


@pytest.fixture(autouse=True)
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose kernel, timesyncd and environment say nothing; the folder of its battery-backed clocks."""
    monkeypatch.delenv(wall_clock.TRUST, raising=False)
    monkeypatch.setattr(wall_clock, "SYNCHRONIZED", tmp_path / "synchronized")
    monkeypatch.setattr(wall_clock, "RTC", tmp_path / "rtc")
    monkeypatch.setattr(wall_clock, "_kernel_says_so", lambda: False)
    (tmp_path / "rtc" / "rtc0").mkdir(parents=True)
    return tmp_path


def test_a_machine_without_any_sign_is_not_trusted():
    assert not is_trusted(NOW)


def test_the_kernel_timesyncd_or_the_owner_says_that_the_clock_is_right(pi, monkeypatch):
    monkeypatch.setattr(wall_clock, "_kernel_says_so", lambda: True)
    assert is_trusted(NOW) and not is_trusted(RELEASED_S - 1), "no clock that is right shows less than our release"
    monkeypatch.setattr(wall_clock, "_kernel_says_so", lambda: False)
    (pi / "synchronized").touch()
    assert is_trusted(NOW)
    (pi / "synchronized").unlink()
    monkeypatch.setenv(wall_clock.TRUST, "1")
    assert is_trusted(0.0)


@pytest.mark.parametrize(
    "shown, right", [(NOW, True), (NOW - 3000, True), (0, False), (NOW - 86400, False), ("x", False)]
)
def test_a_battery_backed_clock_counts_if_it_shows_the_same(pi, shown, right):
    (pi / "rtc" / "rtc0" / "since_epoch").write_text(f"{shown if isinstance(shown, str) else int(shown)}\n")
    assert is_trusted(NOW) is right


@pytest.mark.parametrize("state, expected", [(0, True), (4, True), (TIME_ERROR, False), (-1, False)])
def test_the_kernels_answer_is_read(monkeypatch, state, expected):
    monkeypatch.undo()
    monkeypatch.setattr(wall_clock._core, "clock_state", lambda: state)
    assert wall_clock._kernel_says_so() is expected


def test_time_is_told_at_once_then_each_minute_and_when_the_clock_is_set(monkeypatch):
    clock, wall = 100.0, NOW
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(time, "time", lambda: wall)
    told = WallClock()
    first = told.news()
    assert (first.unix_s, first.trusted) == (NOW, False)
    clock, wall = 159.0, NOW + 59
    assert told.news() is None
    clock, wall = 160.0, NOW + 60
    assert told.news().unix_s == NOW + 60
    clock, wall = 161.0, NOW + 7200
    assert told.news().unix_s == NOW + 7200
    assert told.news() is None


def test_trust_stays_until_the_process_ends(pi, monkeypatch):
    """A clock that was right drifts by seconds while there is no network; the kernel calls that unsynchronised."""
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(time, "time", lambda: NOW + clock)
    told = WallClock()
    assert not told.news().trusted
    (pi / "synchronized").touch()
    clock = 61.0
    assert told.news().trusted
    (pi / "synchronized").unlink()
    clock = 122.0
    assert told.news().trusted


@pytest.mark.parametrize(
    "unit", ["device_agent/edgefl-agent.service", "broker/edgefl-aggregator.service", "broker/edgefl-helper.service"]
)
def test_the_units_let_the_daemons_ask_the_kernel_about_the_clock_and_not_set_it(unit):
    """ProtectClock= forbids to read it too, and a call that SystemCallFilter= does not name may kill a process."""
    lines = (ROOT / unit).read_text().splitlines()
    assert (
        "SystemCallFilter=@system-service adjtimex clock_adjtime clock_adjtime64" in lines
        and "CapabilityBoundingSet=" in lines
    )
    assert not any(line.startswith("ProtectClock") for line in lines)
