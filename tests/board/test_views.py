"""What the page and /api show of devices and versions."""

from __future__ import annotations

import msgspec
import pytest
from board_fixture import NOW, rows, summary

from edgefl.board import views
from edgefl.board.rounds import Past
from edgefl.protocol.fleet import DeviceRow


@pytest.mark.parametrize(
    ("row", "tone", "part"),
    [
        (DeviceRow("a", "ready"), "good", ""),
        (DeviceRow("a", "training"), "busy", ""),
        (DeviceRow("a", "paused", "heat"), "rest", "cool"),
        (DeviceRow("a", "trouble", "data"), "bad", "data"),
        (DeviceRow("a", "lost"), "gone", "power"),
        (DeviceRow("a", "absent"), "gone", "start its agent"),
        (DeviceRow("a", "ready", barred="quarantine"), "bad", "release it"),
        (DeviceRow("a", "ready", paused="by an operator"), "rest", "resume it"),
        (DeviceRow("a", "a state of tomorrow"), "bad", ""),
    ],
)
def test_a_device_has_a_tone_and_what_to_do(row, tone, part):
    seen = views.device(row)
    assert (seen.tone, part in seen.remedy, seen.id) == (tone, True, "a")
    assert bool(part) == bool(seen.remedy)


def test_devices_that_need_an_operator_come_first():
    seen = views.devices(rows(), limit=200)
    assert [d.id for d in seen.devices[:4]] == ["pi-07", "pi-12", "pi-19", "pi-40"]
    assert seen.shown["attention"] == 4 and seen.shown["barred"] == 1 and seen.total == seen.matching == 42


def test_a_page_of_the_fleet_is_bounded_and_the_counts_are_of_the_whole():
    many = [DeviceRow(f"d{i:05}", "ready") for i in range(5000)]
    seen = views.devices(many, limit=10**6, offset=4900)
    assert len(seen.devices) == 100 and seen.shown == {
        "": 5000,
        "attention": 0,
        "barred": 0,
        "paused": 0,
        "ready": 5000,
    }
    assert len(views.devices(many, limit=10**6).devices) == views.MOST_DEVICES
    found = views.devices(many, show="ready", search="D0004", limit=50)
    assert (found.matching, len(found.devices)) == (10, 10)


def test_an_overview_is_small_and_says_what_to_do_about_each_device():
    made = views.overview(summary(), NOW, None, connected=True)
    assert {d.id for d in made.attention} == {"pi-07", "pi-12", "pi-19", "pi-40"}
    assert all(d.remedy for d in made.attention)
    assert len(msgspec.json.encode(made)) < 16_000


def test_the_newest_kept_version_is_in_use():
    past = Past()
    kept = views.versions([0, 3, 4], past.version)
    assert [(v.version, v.current) for v in kept.versions] == [(4, True), (3, False), (0, False)]
    assert views.versions([], past.version).versions == []
