"""Faults of the virtual fleet: what a spec says is what devices have, and rounds show it."""

from __future__ import annotations

import pytest

import edgefl
from edgefl.errors import UsageError
from edgefl.simulation.devices.faults import DAY_S, HOUR_S, KINDS, LASTING, Faults, Handicap
from edgefl.simulation.devices.line import QUICK, Line

DEVICES = [f"dev-{i}" for i in range(30)]


def run(faults: str, **options):
    defaults = {"devices": 10, "rounds": 6, "deadline_s": 60.0, "codec": "raw32", "downlink": "raw32", "seed": 3}
    return edgefl.simulate("mlp:64-8-10", "digits", faults=faults, **{**defaults, **options})


def hit(history) -> int:
    """Devices that no round has counted."""
    return 10 - len({device for record in history.rounds for device in record.devices})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_default_size_and_a_place_in_the_help(kind):
    assert Faults.parse(f"{kind}:0.5").kinds == {kind: (0.5, KINDS[kind].size)}
    assert Faults.parse(f"{kind}:0.5:2").kinds == {kind: (0.5, 2.0)}


@pytest.mark.parametrize(
    "spec", ["slow:2", "slow:0.1:0", "slow:0.1:-1", "slow:0.1:inf", "slow:0.1:2:3", "slow", "hung:x"]
)
def test_a_spec_that_makes_no_sense_is_refused(spec):
    with pytest.raises(UsageError, match="fault"):
        Faults.parse(spec)


@pytest.mark.parametrize("kind", LASTING)
def test_a_lasting_kind_has_exactly_its_share_and_always_the_same_devices(kind):
    faults = Faults.parse(f"{kind}:0.1")
    drawn = faults.handicaps(DEVICES, 5)
    assert len(drawn) == 3
    assert drawn == faults.handicaps(DEVICES, 5)
    assert any(faults.handicaps(DEVICES, seed).keys() != drawn.keys() for seed in range(5))


def test_without_lasting_kinds_no_device_has_a_handicap():
    assert Faults.parse("dropout:0.5,straggler:1").handicaps(DEVICES, 0) == {}


def test_a_line_is_first_in_first_out_and_what_it_did_not_use_is_lost():
    line = Line(100.0)
    assert [line.send(50, 0.0), line.send(200, 0.0)] == [0.5, 2.5]
    assert line.send(100, 10.0) == 11.0


def test_on_a_line_that_is_healed_nothing_overtakes_what_is_queued():
    """Found by simulation: parts that were queued came half a minute after those that were sent later."""
    line = Line(100.0)
    assert line.send(100, 0.0) == 1.0
    line.heal()
    assert line.send(50, 0.5) == 1.0
    assert line.progress(0.5) == (50, 100, 50) and line.rate_at(0.5) == 100.0
    assert line.send(50, 1.0) == 1.0 and line.send(50, 2.0) == 2.0
    assert line.progress(2.0) == (250, 0, 0) and line.rate_at(2.0) == QUICK


def test_a_device_is_away_at_the_same_hours_of_each_day():
    handicap = Handicap(away_from=20 * HOUR_S, away_s=8 * HOUR_S)
    assert handicap.leaves_at(0.0) == 20 * HOUR_S
    assert handicap.leaves_at(21 * HOUR_S) == DAY_S + 20 * HOUR_S
    assert handicap.away_until(HOUR_S) == 4 * HOUR_S  # since yesterday
    assert handicap.away_until(5 * HOUR_S) == 5 * HOUR_S
    assert handicap.away_until(DAY_S + 23 * HOUR_S) == DAY_S + 28 * HOUR_S


def test_hung_devices_count_in_no_round():
    assert hit(run("hung:0.2")) == 2


def test_devices_without_power_count_in_no_round():
    assert hit(run("away:0.3:24")) == 3


def test_slow_devices_make_rounds_longer():
    usual, slow = run("", rounds=1), run("slow:0.1:50", rounds=1)
    assert hit(slow) == 0
    assert slow.final.seconds > 10 * usual.final.seconds


def test_a_link_takes_the_time_of_its_bytes_and_changes_no_bit():
    usual, slow = run("", rounds=1), run("link:1:64", rounds=1)
    size = slow.final.bytes_up / 10
    assert size / 8000 < slow.final.seconds - usual.final.seconds < 3 * size / 8000
    assert slow.final.bytes_up == usual.final.bytes_up
    assert (slow.params == usual.params).all()


def test_a_crawling_link_takes_little_more_than_its_bytes():
    usual, slow = run("", rounds=1), run("link:1:0.3", rounds=1, deadline_s=3600.0)
    size = (slow.final.bytes_up + slow.final.bytes_down) / 10
    assert size / 37.5 < slow.final.seconds < 1.3 * size / 37.5 + 3.0
    assert slow.final.bytes_up <= 1.1 * usual.final.bytes_up  # in shorter parts
    assert slow.final.bytes_down <= 1.1 * usual.final.bytes_down
