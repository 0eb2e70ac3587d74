"""Devices that should be there and were never heard are named, once, and again when others are."""

from __future__ import annotations

from edgefl_broker.unheard import AGAIN_S, EVERY_S, FIRST_S, NAMED, Unheard

from edgefl.protocol.fleet import ABSENT, DeviceRow


def rows(**states: str) -> list[DeviceRow]:
    return [DeviceRow(device, state) for device, state in states.items()]


def test_enrolled_devices_are_named_half_a_minute_after_the_start_and_again_when_others_are_missing():
    unheard, fleet = Unheard(), rows(a="ready", b=ABSENT, c=ABSENT)
    assert unheard.look(100.0, lambda: fleet, 0) == "" == unheard.look(100.0 + FIRST_S - 1, lambda: fleet, 0)
    line = unheard.look(100.0 + FIRST_S, lambda: fleet, 0)
    assert line.startswith("enrolled, and never heard: b, c: ") and "edgefl-agent --check" in line
    now = 100.0 + FIRST_S
    assert all(not unheard.look(now + EVERY_S * i, lambda: fleet, 0) for i in range(1, 5))
    assert "heard: c: " in unheard.look(now + 5 * EVERY_S, lambda: rows(a="ready", b="ready", c=ABSENT), 0)
    assert "heard: c: " in unheard.look(now + 5 * EVERY_S + AGAIN_S, lambda: rows(c=ABSENT), 0)


def test_without_keys_they_are_counted_and_a_whole_fleet_is_no_line():
    unheard = Unheard()
    unheard.look(0.0, list, 3)
    assert unheard.look(FIRST_S, lambda: rows(a="lost"), 3).startswith("1 of 3 expected devices have ever")
    assert unheard.look(FIRST_S + EVERY_S, lambda: rows(a="lost", b="ready", c="ready"), 3) == ""
    assert Unheard().look(0.0, list, 0) == ""


def test_a_large_fleet_is_a_short_line():
    unheard = Unheard()
    unheard.look(0.0, list, 0)
    line = unheard.look(FIRST_S, lambda: rows(**{f"d{i}": ABSENT for i in range(1000)}), 0)
    assert f"d{NAMED - 1} and {1000 - NAMED} more" in line and len(line) < 300
