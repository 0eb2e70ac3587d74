"""Worlds: what simulated devices are like, and what that costs."""

from __future__ import annotations

import math
import random
import statistics

import pytest

import edgefl
from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.simulation.devices.battery import Battery, Cell
from edgefl.simulation.devices.energy import Appetite, Range
from edgefl.simulation.devices.faults import DAY_S, HOUR_S
from edgefl.simulation.devices.hours import ALWAYS, Presence, read
from edgefl.simulation.devices.world import Kind, World, profiles

MODEL, DATA = "mlp:64-16-10", "digits"


def run(*kinds: Kind, devices: int = 10, rounds: int = 2, **options):
    world = World(kinds) if kinds else None
    return edgefl.simulate(
        MODEL, DATA, devices=devices, rounds=rounds, seed=3, min_reports=1, codec="raw32", world=world, **options
    )


# Hours


def test_windows_of_hours_go_over_midnight():
    night = read("22-6", "hours")
    assert [hour for hour in range(24) if night[hour]] == [0, 1, 2, 3, 4, 5, 22, 23]
    assert [hour for hour in range(24) if read("8-9, 12-14", "hours")[hour]] == [8, 12, 13]
    assert read("0-24", "hours") == read("", "hours") == ALWAYS


@pytest.mark.parametrize("value", ["8", "8-25", "a-b", "-", [0.0] * 24, [1.0] * 23, [2.0] * 24])
def test_hours_that_no_day_has_are_refused(value):
    with pytest.raises(UsageError, match="hours"):
        read(value, "hours")


def test_presence_follows_the_device_s_own_clock():
    there = Presence(read("8-16", "hours"), shift_s=2 * HOUR_S, seed=1)
    assert there.away_until(0.0) == 6 * HOUR_S
    assert there.away_until(6 * HOUR_S) == 6 * HOUR_S
    assert there.leaves_at(6 * HOUR_S) == 14 * HOUR_S
    assert there.away_until(DAY_S + 15 * HOUR_S) == 2 * DAY_S + 6 * HOUR_S


def test_a_share_of_an_hour_is_its_probability_drawn_anew_each_day():
    days = 2000
    there = Presence((0.3,) + (0.0,) * 23, shift_s=0.0, seed=7)
    seen = [there.away_until(day * DAY_S) == day * DAY_S for day in range(days)]
    assert abs(sum(seen) / days - 0.3) < 4 * math.sqrt(0.3 * 0.7 / days)
    assert seen == [there.away_until(day * DAY_S) == day * DAY_S for day in range(days)]  # whenever it is asked


@pytest.mark.parametrize("shift_h", [-11.3, -3.7, -0.1, 0.0, 3.7, 11.3])
def test_a_device_is_there_from_when_it_comes_until_it_leaves(shift_h):
    """By the arithmetic of floats: one that leaves when it comes would do so without end, at one time of the clock."""
    rng = random.Random(5)
    for _ in range(2000):
        there = Presence(read("8-16", "hours"), (shift_h + rng.uniform(-0.7, 0.7)) * HOUR_S, seed=1)
        comes = there.away_until(rng.uniform(0.0, 3e6))
        leaves = there.leaves_at(comes)
        assert comes < leaves < there.away_until(leaves)
        assert there.away_until(comes) == comes


def test_a_fleet_whose_clocks_differ_comes_and_goes_for_days():
    days = run(Kind(hours="8-16", shift_h=3.7), devices=40, rounds=12, interval_s=6 * HOUR_S)
    assert len(days.rounds) == 12 and days.final.elapsed_s > 2 * DAY_S
    assert 0 < sum(record.reported for record in days.rounds) < 12 * 40


# Batteries

CELL = Cell(capacity_j=HOUR_S * 10, reserve=0.2, idle_w=1.0, charge_w=3.0, charge_hours=read("12-16", "charge_hours"))


def test_a_battery_drains_charges_and_is_never_more_than_full():
    battery = Battery(CELL, HOUR_S * 5, shift_s=0.0)
    assert battery.share(4 * HOUR_S) == pytest.approx(0.1)
    assert battery.share(12 * HOUR_S) == 0.0
    assert battery.share(14 * HOUR_S) == pytest.approx(0.4)  # 2 W for 2 hours
    battery.spend(HOUR_S, 14 * HOUR_S)
    assert battery.share(14 * HOUR_S) == pytest.approx(0.3)
    assert battery.share(16 * HOUR_S) == pytest.approx(0.7)
    full = Battery(CELL, HOUR_S * 10, shift_s=-12 * HOUR_S)
    assert full.share(HOUR_S * 30) <= 1.0


def test_a_battery_says_when_it_reaches_a_level():
    battery = Battery(CELL, HOUR_S * 5, shift_s=0.0)
    assert battery.reaches(0.2, 0.0) == pytest.approx(3 * HOUR_S)
    at = battery.reaches(0.3, 6 * HOUR_S)
    assert at == pytest.approx(13.5 * HOUR_S)  # empty from the fifth hour on, then 2 W from noon
    assert battery.share(at) == pytest.approx(0.3)
    assert battery.reaches(0.95, 0.0) == math.inf


# Kinds and files


def test_bodies_have_exact_shares_and_do_not_depend_on_who_asks_first():
    world = World([Kind(share=3, examples_per_s=100), Kind(share=1, examples_per_s=10, spread=0.2)])
    bodies = world.bodies(1000, flops=1e6, seed=5)
    kinds = [bodies.kind_of(number) for number in range(1000)]
    assert kinds.count(0) == 750
    assert kinds[:500].count(0) not in (250, 500)  # mixed
    again = world.bodies(1000, flops=1e6, seed=5)
    assert [again.body(n).seconds_per_example for n in reversed(range(1000))] == [
        bodies.body(n).seconds_per_example for n in reversed(range(1000))
    ]
    slow = [math.log(bodies.body(n).seconds_per_example / 0.1) for n in range(1000) if kinds[n] == 1]
    assert abs(statistics.mean(slow)) < 0.06
    assert abs(statistics.stdev(slow) - 0.2) < 0.04


def test_speed_by_operations_counts_the_backward_pass():
    assert Kind(gflops=2.0).seconds_per_example(1e9) == pytest.approx(1.5)
    with pytest.raises(UsageError, match="gflops and examples_per_s"):
        World([Kind(gflops=1.0, examples_per_s=1.0)])


def test_a_file_names_profiles_and_replaces_what_they_say(tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[[devices]]\nprofile = "pi-4"\nlink = "lte"\nlatency_s = 0.5\n[[devices]]\nexamples_per_s = 50.0\n'
    )
    first, second = World.load(file).kinds
    board, link = profiles()["board"]["pi-4"], profiles()["link"]["lte"]
    assert (first.gflops, first.up_kbit_s, first.latency_s) == (board["gflops"], link["up_kbit_s"], 0.5)
    assert board["source"] in first.source and link["source"] in first.source
    assert second == Kind(examples_per_s=50.0)


def test_every_profile_has_a_source_and_is_a_kind():
    for shelf, tables in profiles().items():
        for name, table in tables.items():
            assert table["source"], (shelf, name)
            World([Kind(**table)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "[[devices]]"),
        ("devices = 3", "[[devices]]"),
        ("device = 1", "has no key 'device'"),
        ('[[devices]]\nprofile = "pi-44"', "no board is called 'pi-44'"),
        ('[[devices]]\nlink = "wify"', "did you mean 'wifi'"),
        ("[[devices]]\nshare = 1\n[[devices]]\nspeed = 3", "[[devices]] 2"),
        ("[[devices]]\nshare = 0", "share"),
        ("[[devices]]\nactive_watts = [3, 1]", "active_watts"),
        ('[[devices]]\nhours = "8"', "hours"),
        ("[[devices]]\nshift_h = -3", "shift_h is -3: give a number from 0 to 12"),
        ("[[devices]]\nlatency_s = nan", "latency_s is nan"),
        ("[[devices]]\nactive_watts = [1, 2, 3]", "active_watts is [1.0, 2.0, 3.0]"),
        ("[[devices]]\nactive_watts = []", "active_watts is []"),
        ("[[devices]]\nactive_watts = [nan, 1]", "active_watts"),
        ("[[devices]]\nidle_watts = inf", "idle_watts is inf"),
        ("[[devices]]\ncharge_watts = inf", "charge_watts is inf"),
        ("[[devices]]\nexamples_per_s = 0", "examples_per_s is 0"),
        ("[[devices]]\nup_kbit_s = 1e-300", "up_kbit_s is 1e-300"),
        ("[[devices]]\ndropout_s = 1e12", "dropout_s is 1000000000000"),
        (f"[[devices]]\nhours = [1e-9, {'0, ' * 23}]", "less than once a year"),
        (f"[[devices]]\ncharge_hours = [nan, {'1, ' * 23}]", "charge_hours"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, text, said):
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        World.load(file)
    assert said in str(caught.value)
    assert "fleet.toml" in str(caught.value)


@pytest.mark.parametrize("wrong", [{"shift_h": -3.0}, {"latency_s": math.nan}, {"gflops": 0.0}, {"share": math.inf}])
def test_a_kind_that_a_program_makes_is_checked_as_a_file_s(wrong):
    with pytest.raises(UsageError, match=rf"\[\[devices\]\] 2: {next(iter(wrong))} is "):
        World([Kind(), Kind(**wrong)])


def test_devices_that_never_come_end_the_run():
    never = Kind(hours=[0.003] + [0.0] * 23)
    assert sum(record.reported for record in run(never, devices=2, rounds=1, deadline_s=60.0).rounds) == 0


# Simulations


def test_slow_kinds_and_slow_links_take_longer_and_change_no_bit():
    usual = run()
    world = run(Kind(examples_per_s=20.0, up_kbit_s=64.0, down_kbit_s=128.0, latency_s=0.2))
    assert (world.params == usual.params).all()
    assert world.final.bytes_up == usual.final.bytes_up
    examples = max(record.num_examples / record.reported for record in world.rounds)
    assert world.final.seconds > 2 * (examples / 20.0 + usual.final.bytes_up / 20 * 8 / 64000)
    assert [record.elapsed_s for record in world.rounds] == sorted(record.elapsed_s for record in world.rounds)


def test_energy_is_seconds_of_training_and_bytes():
    kind = Kind(examples_per_s=100.0, active_watts=[2.0, 3.0])
    history = run(kind, rounds=3, epochs=2)
    examples = sum(record.num_examples for record in history.rounds)
    assert history.rounds[0].joules is not None
    low, high = (sum(record.joules[place] for record in history.rounds) for place in (0, 1))
    assert low == pytest.approx(2.0 * examples * 2 / 100.0)
    assert high == pytest.approx(1.5 * low)
    history = run(Kind(joules_per_mb_up=5.0), rounds=3)
    spent = sum(record.joules[0] for record in history.rounds)
    assert 1.0 < spent / (5e-6 * history.final.bytes_up) < 1.2  # statuses and topics beside the updates
    assert all(record.joules is None for record in run(rounds=1).rounds)


def test_appetite_is_a_range():
    appetite = Appetite(Range(1.0, 2.0), Range(0.1, 0.2), Range(0.01, 0.02))
    assert appetite.of(10.0, 20, 100) == Range(13.0, 26.0)


def test_devices_outside_their_hours_take_no_part():
    history = run(Kind(hours="0-12", share=6), Kind(hours="12-24", share=4), rounds=1)
    assert history.rounds[0].reported == 6
    later = run(Kind(hours="0-12", share=6), Kind(hours="12-24", share=4), rounds=3, interval_s=6 * 3600.0)
    assert [record.reported for record in later.rounds] == [6, 6, 4]


def test_a_device_loses_power_with_its_kind_s_probability():
    history = run(Kind(dropout=1.0, dropout_s=3600.0, share=3), Kind(share=7), rounds=1)
    assert history.rounds[0].reported == 7


def test_a_low_battery_pauses_a_device_until_it_is_charged():
    """6 J a training of a battery of 36 J, charged by day: two devices of ten, in the night."""
    tired = Kind(
        share=2, examples_per_s=10.0, active_watts=0.4, battery_wh=0.01, reserve=0.3, charge_watts=0.01,
        charge_hours="8-20",
    )  # fmt: skip
    history = run(tired, Kind(share=8, examples_per_s=10.0), rounds=8, interval_s=3 * 3600.0)
    reported = [record.reported for record in history.rounds]
    assert reported[0] == 10
    assert min(reported) < 10  # one has had enough
    assert reported[-1] == 10  # and goes on once it is charged


def test_only_devices_with_a_life_of_their_own_are_made_at_the_start():
    for kind in (
        Kind(hours="8-9"), Kind(up_kbit_s=9.0), Kind(down_kbit_s=9.0), Kind(latency_s=0.1), Kind(battery_wh=1.0),
        Kind(active_watts=1.0), Kind(joules_per_mb_down=1.0),
    ):  # fmt: skip
        assert len(list(World([kind]).bodies(10, 1e6, 1).lively())) == 10
    assert not list(World([Kind(examples_per_s=5.0, spread=0.5, dropout=0.1)]).bodies(10, 1e6, 1).lively())
    assert len(list(World([Kind(share=3), Kind(hours="8-9")]).bodies(100, 1e6, 1).lively())) == 25


def test_a_device_that_is_made_late_is_as_one_that_was_there(monkeypatch):
    kinds = [Kind(examples_per_s=200.0, spread=0.5), Kind(dropout=0.3, dropout_s=1.0)]
    late = run(*kinds, devices=30, rounds=6, fraction=0.2)
    monkeypatch.setattr("edgefl.simulation.devices.world.Kind.is_lively", True)
    early = run(*kinds, devices=30, rounds=6, fraction=0.2)
    assert (late.params == early.params).all()
    assert [record.devices for record in late.rounds] == [record.devices for record in early.rounds]


def test_i33_a_world_repeats_bit_for_bit():
    kinds = [Kind(spread=0.4, hours=[0.5] * 24, dropout=0.2), Kind(battery_wh=0.05, idle_watts=0.1, spread=0.3)]
    first, second = (run(*kinds, rounds=4, interval_s=1800.0, workers=workers) for workers in (1, 3))
    assert first.to_json().split(b'"rounds"')[1] == second.to_json().split(b'"rounds"')[1]


def test_the_command_tells_what_the_target_took(tmp_path, capsys):
    file = tmp_path / "fleet.toml"
    file.write_text('[[devices]]\nprofile = "pi-4"\nlink = "lte"\n')
    words = "simulate --model mlp:64-16-10 --data digits --devices 10 --rounds 30 --epochs 5 --target-accuracy 0.7"
    assert main([*words.split(), "--devices-file", str(file)]) == 0
    *_, sums, target = capsys.readouterr().out.strip().splitlines()
    assert sums.startswith("the devices took ") and sums.endswith(" J")
    assert target.startswith("accuracy 0.7 after round ")
    assert main([*words.split(), "--devices-file", str(file), "--transport", "mqtt"]) == 2
