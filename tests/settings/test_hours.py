"""Daily hours in a time zone: across midnight, and on the days when clocks are changed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import UsageError
from edgefl.settings.hours import Hours, shown, zone_of

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone=BERLIN, fold=0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def hours(text: str, zone=BERLIN) -> Hours:
    return Hours.parse("rounds.window", text, zone)


@pytest.mark.parametrize(
    "text, inside, outside",
    [
        ("01:00-05:00", ["01:00", "04:59:59"], ["00:59:59", "05:00", "13:00"]),
        ("22:30-06:00", ["22:30", "23:59:59", "00:00", "05:59:59"], ["06:00", "22:29:59"]),
        ("23:00-24:00", ["23:00", "23:59:59"], ["00:00", "22:59:59"]),
        ("00:00-00:01", ["00:00:59"], ["00:01", "23:59"]),
    ],
)
def test_from_the_first_time_to_before_the_second(text, inside, outside):
    for day in ("2026-01-15", "2026-07-15"):
        assert all(hours(text).includes(at(f"{day}T{time}")) for time in inside)
        assert not any(hours(text).includes(at(f"{day}T{time}")) for time in outside)


@pytest.mark.parametrize(
    "text, now, expected",
    [
        ("01:00-05:00", "2026-06-01T05:00", at("2026-06-02T01:00")),
        ("01:00-05:00", "2026-06-01T00:59:30", at("2026-06-01T01:00")),
        ("22:00-06:00", "2026-06-01T12:00", at("2026-06-01T22:00")),
        # clocks go from 02:00 to 03:00 on 29 March 2026
        ("02:30-05:00", "2026-03-29T01:59", at("2026-03-29T03:00")),
        ("02:10-02:50", "2026-03-29T00:00", at("2026-03-30T02:10")),
        ("01:00-05:00", "2026-03-28T12:00", at("2026-03-29T01:00")),
        # and from 03:00 back to 02:00 on 25 October 2026
        ("03:00-05:00", "2026-10-25T01:00", at("2026-10-25T03:00")),
        ("02:00-02:30", "2026-10-25T02:40", at("2026-10-25T02:00", fold=1)),
    ],
)
def test_the_next_time(text, now, expected):
    assert hours(text).next(at(now)) == expected


def test_a_window_lasts_as_long_as_a_clock_on_the_wall_shows_it():
    seconds = range(int(at("2026-03-29T00:00")), int(at("2026-03-30T00:00")), 60)
    assert len(seconds) == 23 * 60
    assert sum(hours("01:00-05:00").includes(second) for second in seconds) == 3 * 60
    seconds = range(int(at("2026-10-25T00:00")), int(at("2026-10-26T00:00")), 60)
    assert sum(hours("01:00-05:00").includes(second) for second in seconds) == 5 * 60


@given(
    st.integers(0, 1439), st.integers(0, 1439), st.floats(1.6e9, 2e9),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC", None]),
)  # fmt: skip
def test_it_is_time_at_the_next_time_and_at_no_moment_before(begin, end, unix_s, zone):
    if begin == end:
        return
    daily = Hours(begin, end, zone_of("", zone))
    found = daily.next(unix_s)
    assert found >= unix_s and daily.includes(found)
    if found > unix_s:
        assert not daily.includes(unix_s) and not daily.includes(found - 1)
        assert found - unix_s <= 49 * 3600


@pytest.mark.parametrize(
    "text", ["", "1-5", "01:00", "25:00-05:00", "01:60-05:00", "24:00-05:00", "01:00-05:00 ", "1:00-5:00"]
)
def test_anything_else_is_refused_by_the_name_of_its_setting(text):
    with pytest.raises(UsageError, match=r'rounds\.window is .*: give two times, such as "01:00-05:00"'):
        hours(text)


def test_no_time_at_all_is_refused():
    with pytest.raises(UsageError, match="no time at all"):
        hours("05:00-05:00")


@pytest.mark.parametrize(
    "name, hint",
    [("Europe/Berlim", "did you mean 'Europe/Berlin'?"), ("Nowhere", "install tzdata"), ("/etc/passwd", "")],
)
def test_a_wrong_time_zone_is_refused_with_the_nearest_one(name, hint):
    with pytest.raises(UsageError) as error:
        zone_of("rounds.timezone", name)
    assert str(error.value).startswith(f"rounds.timezone is '{name}'") and hint in str(error.value)


def test_a_moment_is_shown_as_a_clock_there_shows_it():
    assert shown(at("2026-07-01T01:00"), BERLIN) == "2026-07-01 01:00 CEST"
    assert shown(0.0, zone_of("", "UTC")) == "1970-01-01 00:00 UTC"
