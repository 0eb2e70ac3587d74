"""Standing by hand: which devices have earned that rounds wait for them, and which have lost it."""

from __future__ import annotations

import copy
import random

import msgspec
import pytest

from edgefl.coordinator.devices.standing import LEAST_WAIT_S, PATIENCE, QUICK_S, SLACK, Outcome, Standing
from edgefl.history_record import RoundRecord
from edgefl.protocol.round import MAX_UNEARNED, UNEARNED_ROUNDS

FLEET = [f"d{i}" for i in range(10)]


def survey(standing, devices=FLEET, deadline_s=300.0, rank=2):
    return standing.survey(devices, deadline_s, rank=rank, most_s=8 * deadline_s)


def play(standing, number, reports, devices=FLEET, present=(), **outcome):
    """Round `number`, in which these devices report after so many seconds; why the others did not."""
    found = survey(standing, devices)
    standing.ask(number, devices, present or devices)
    waited = found.worth or devices
    for device, seconds in reports.items():
        standing.report(device, number, seconds)
    return standing.close(Outcome(number, waited, list(reports), skipped=found.skipped, **outcome))


def all_but(*missing, seconds=1.0):
    return {device: seconds for device in FLEET if device not in missing}


def test_a_device_that_was_never_asked_is_worth_waiting_for():
    assert survey(Standing()).worth == FLEET


def test_i07_while_no_time_is_known_no_device_is_slow():
    """Found by simulation: all that took longer than a second were, until the next round had opened."""
    standing = Standing()
    survey(standing, deadline_s=300.0)
    standing.report("d0", 1, 290.0)
    standing.report("d1", 1, 310.0)
    assert standing.is_worth("d0") and not standing.is_worth("d1")


def test_a_device_is_slow_beside_others_whose_reports_took_no_time():
    """A time of 0 is known: clocks of some machines move in steps, and a simulated device may be as quick."""
    standing = Standing()
    play(standing, 1, all_but("d3", seconds=0.0) | {"d3": 200.0})
    assert survey(standing).skipped == {"d3": "takes 200 s, the others 0 s"}
    assert standing.working_s([0.0]) == QUICK_S


def test_a_device_that_missed_a_round_is_not_waited_for_until_an_update_of_it_comes():
    standing = Standing()
    assert play(standing, 1, all_but()) == {}
    assert play(standing, 2, all_but("d3")) == {"d3": "no update since round 1"}
    for number in (3, 4, 5):
        assert survey(standing).skipped == {"d3": "no update since round 1"}
        assert play(standing, number, all_but("d3")) == {"d3": "no update since round 1"}
    standing.report("d3", 2, 2.5, counted=False)
    assert survey(standing).worth == FLEET


def test_an_update_that_comes_in_a_round_that_does_not_wait_for_it_earns_waiting_too():
    standing = Standing()
    play(standing, 1, all_but("d3"))
    assert survey(standing).skipped == {"d3": "no update yet"}
    assert play(standing, 2, all_but()) == {}
    assert survey(standing).worth == FLEET


def test_an_update_that_comes_again_after_its_round_was_abandoned_makes_no_device_slow():
    """Found by simulation, seed 409024: the second time was a deadline longer, and no round waited for the device."""
    standing = Standing()
    play(standing, 1, {"d3": 5.0})
    standing.count("d3", 1, counted=False)
    standing.report("d3", 1, 305.0)
    assert standing.can_report("d3", 5.0)


def test_an_outage_that_all_share_costs_nobody_anything_unless_it_lasts():
    standing = Standing()
    play(standing, 1, all_but())
    few = {device: 1.0 for device in FLEET[:4]}
    why = play(standing, 2, few)
    assert set(why) == set(FLEET[4:]) and why["d9"] == "missed with most others; last update of round 1"
    assert survey(standing).worth == FLEET
    play(standing, 3, few)
    assert survey(standing).worth == FLEET[:4]


def test_half_of_those_waited_for_are_no_outage():
    standing = Standing()
    play(standing, 1, {device: 1.0 for device in FLEET[:5]})
    assert survey(standing).worth == FLEET[:5]


def test_after_an_outage_a_device_that_reports_has_missed_nothing():
    standing = Standing()
    few = {device: 1.0 for device in FLEET[:4]}
    play(standing, 1, few)
    play(standing, 2, all_but())
    play(standing, 3, few)
    assert survey(standing).worth == FLEET


def test_a_round_that_closes_at_its_goal_proves_nothing():
    standing = Standing()
    assert play(standing, 1, {"d0": 1.0, "d1": 1.0, "d2": 1.0, "d3": 1.0, "d4": 1.0}, at_goal=True) == {}
    assert survey(standing).worth == FLEET


def test_an_update_that_is_refused_earns_nothing():
    standing = Standing()
    play(standing, 1, all_but())
    assert play(standing, 2, all_but("d3"), rejected=["d3"]) == {"d3": "update refused since round 1"}
    assert "d3" not in survey(standing).worth


def test_a_device_far_slower_than_the_others_is_not_waited_for_until_it_is_quick_again():
    standing = Standing()
    play(standing, 1, all_but() | {"d3": PATIENCE * 1.0 + 0.1})
    assert survey(standing).skipped == {"d3": "takes 10 s, the others 1 s"}
    standing.report("d3", 2, PATIENCE * 1.0, counted=False)
    assert survey(standing).worth == FLEET


def test_within_a_second_nobody_is_slow():
    standing = Standing()
    play(standing, 1, all_but(seconds=0.01) | {"d3": 1.0})
    assert survey(standing).worth == FLEET
    play(standing, 2, all_but(seconds=0.01) | {"d3": 1.1})
    assert survey(standing).skipped == {"d3": "takes 1.1 s, the others 0.01 s"}


def test_a_device_that_takes_longer_than_the_deadline_is_not_waited_for():
    standing = Standing()
    play(standing, 1, all_but(seconds=40.0) | {"d3": 301.0})
    assert survey(standing).skipped == {"d3": "takes 301 s, the deadline is 300 s"}


def test_the_first_deadline_is_as_long_as_the_reports_that_a_round_needs():
    standing = Standing()
    play(standing, 1, {device: 100.0 * (i + 1) for i, device in enumerate(FLEET)})
    assert survey(standing, rank=1).deadline_s == SLACK * 100.0
    assert survey(standing, rank=2).deadline_s == SLACK * 200.0
    assert survey(standing, rank=10).deadline_s == 8 * 300.0
    assert survey(standing, rank=11).deadline_s == 300.0, "so many have never reported"


def test_a_device_that_was_quick_once_and_reports_no_more_shortens_no_deadline():
    """Found by simulation, seed 51496: all others took longer than the deadline, and most of them never counted."""
    standing = Standing()
    play(standing, 1, {device: 2.0 if device == "d0" else 60.0 for device in FLEET})
    assert survey(standing, rank=1, deadline_s=30.0).deadline_s == 30.0
    play(standing, 2, {device: 60.0 for device in FLEET if device != "d0"})
    assert survey(standing, rank=1, deadline_s=30.0).deadline_s == SLACK * 60.0


def test_a_round_waits_a_few_times_as_long_as_the_slowest_device_took():
    standing = Standing()
    assert standing.patience_s(["d0"]) == LEAST_WAIT_S
    assert standing.is_new("d0"), "it may need any time"
    standing.report("d0", 1, 20.0)
    standing.report("d1", 1, 0.1)
    assert standing.patience_s(["d0", "d1"]) == SLACK * 20.0
    assert standing.patience_s(["d1"]) == LEAST_WAIT_S, "a busy machine alone makes no device miss"
    standing.report("d0", 2, 4.0)
    assert standing.patience_s(["d0"]) == SLACK * 20.0, "one quick report is no habit"
    standing.report("d0", 3, 4.0)
    assert standing.patience_s(["d0"]) == SLACK * 4.0
    assert standing.patience_s(["d0", "new"]) == SLACK * 4.0
    assert [standing.is_new(device) for device in ("d0", "new")] == [False, True]


def test_unearned_devices_are_named_in_turns_each_long_enough_to_finish_something():
    standing = Standing()
    many = {f"{i:03}": "" for i in range(80)}
    seen = [standing.name(number, many) for number in range(1, 4 * UNEARNED_ROUNDS)]
    assert all(len(names) == MAX_UNEARNED for names in seen)
    assert seen[0] == seen[UNEARNED_ROUNDS - 1] != seen[UNEARNED_ROUNDS]
    assert set().union(*seen) == set(many)
    assert standing.name(999, {"000": ""}) == ["000"]


def record(standing, number, reports, state="committed", **outcome):
    """The record of a round, as it comes back from the disk."""
    missed = play(standing, number, reports, **outcome)
    times = msgspec.Raw(msgspec.json.encode(reports))
    made = RoundRecord(
        number, state, number, len(reports), sorted(reports), 1, 0.5, 0, 0, 1.0, missed=missed, by_time=times
    )
    return msgspec.json.decode(msgspec.json.encode(made), type=RoundRecord)


@pytest.mark.parametrize(
    "rounds",
    [
        [(all_but("d3"), {})],
        [(all_but(), {}), (all_but("d3"), {})],
        [(all_but(), {}), (all_but("d3"), {}), (all_but("d3"), {}), (all_but("d3", "d5"), {})],
        [(all_but("d3"), {}), (all_but(), {})],
        [({device: 1.0 for device in FLEET[:4]}, {})],
        [({device: 1.0 for device in FLEET[:4]}, {})] * 2,
        [(all_but() | {"d3": 50.0}, {}), (all_but("d3"), {})],
        [(all_but("d3"), {"rejected": ["d3"]})],
    ],
)
def test_a_restart_knows_from_the_records_who_is_waited_for(rounds):
    standing, restored = Standing(), Standing()
    for number, (reports, outcome) in enumerate(rounds, 1):
        restored.restore(record(standing, number, reports, **outcome))
    assert survey(restored) == survey(standing)
    again = [play(s, 9, {device: 1.0 for device in FLEET[:3]}) for s in (standing, restored)]
    assert again[0] == again[1]
    assert survey(restored) == survey(standing)


def owes(standing, device="d3"):
    return standing.owes(device)


def miss(standing, *rounds):
    """Rounds that d3 misses."""
    return [play(standing, number, all_but("d3")) for number in rounds][-1].get("d3")


def earn(standing, first):
    """The first round after those in which d3 reports until rounds wait for it."""
    while owes(standing):
        play(standing, first, all_but())
        first += 1
    return first


def test_with_each_lapse_a_device_owes_twice_as_many_updates_of_distinct_rounds():
    standing, number, prices = Standing(), 1, []
    for _ in range(8):
        play(standing, number, all_but())
        miss(standing, number + 1, number + 2)
        prices.append(owes(standing))
        number = earn(standing, number + 3)
    assert prices == [1, 2, 4, 8, 16, 32, 32, 32]


def test_a_lapse_is_forgotten_after_a_hundred_rounds_without_another():
    for gap, price in ((UNEARNED_ROUNDS - 1, 2), (UNEARNED_ROUNDS, 1)):
        standing = Standing()
        play(standing, 1, all_but())
        miss(standing, 2)
        for number in range(3, 2 + gap):
            play(standing, number, all_but())
        miss(standing, 2 + gap)
        assert owes(standing) == price


def lapsed_twice():
    """d3 has missed round 2, brought an update of round 3, and missed round 4."""
    standing = Standing()
    for number in range(1, 5):
        play(standing, number, all_but(*["d3"][: number % 2 == 0]))
    return standing


def test_an_outage_that_all_share_is_no_lapse_and_a_round_that_waits_for_all_no_further_one():
    standing = lapsed_twice()
    assert owes(standing) == 2
    for number in (5, 6):
        standing.close(Outcome(number, FLEET, all_but("d3")))
    assert owes(standing) == 2
    earn(standing, 7)
    play(standing, 9, {device: 1.0 for device in FLEET[4:8]})
    assert owes(standing) == 0


def test_an_update_that_comes_again_pays_once_and_so_do_two_in_one_round():
    standing = lapsed_twice()
    standing.report("d3", 4, 90.0, counted=False)
    standing.report("d3", 4, 95.0)
    assert owes(standing) == 1
    standing.report("d3", 5, 1.0)
    assert owes(standing) == 1, "its record could tell of one only"
    standing.close(Outcome(5, all_but("d3"), FLEET))
    standing.report("d3", 5, 2.0)
    assert owes(standing) == 1
    standing.report("d3", 6, 1.0)
    assert owes(standing) == 0


def test_a_refused_update_of_a_device_that_lapses_again_says_what_it_owes():
    standing = lapsed_twice()
    earn(standing, 5)
    assert play(standing, 7, all_but("d3"), rejected=["d3"]) == {
        "d3": "update refused since round 6; has to bring 4 more"
    }


@pytest.mark.parametrize("seed", range(20))
def test_a_restart_knows_from_the_records_what_each_device_owes(seed):
    """Devices miss at random: waited for or not, late, refused, with most others, in rounds that are abandoned; and
    the aggregator starts at any time, from its last records."""
    rng, standing, records = random.Random(seed), Standing(), []
    for number in range(1, 3 * UNEARNED_ROUNDS):
        for device in FLEET:
            if rng.random() < 0.2 and number > 2:
                late = number - rng.randint(1, 2)  # between rounds
                if standing.settled(device, late) is None and owes(standing, device):
                    standing.report(device, late, 5.0, counted=False)
        found = survey(standing)
        standing.ask(number, FLEET, FLEET)
        share = 0.2 if rng.random() < 0.1 else 0.8
        reports = {device: 1.0 for device in FLEET if rng.random() < share}
        for device in reports:
            standing.report(device, number, 1.0)
        state = "abandoned" if rng.random() < 0.1 else "committed"
        rejected = [device for device in FLEET if device not in reports and rng.random() < 0.2]
        waited = found.worth or FLEET
        skipped = found.skipped if found.worth else {}
        missed = standing.close(Outcome(number, waited, reports, rejected, skipped))
        if state == "abandoned":
            for device in reports:
                standing.count(device, number, counted=False)
        times = msgspec.Raw(msgspec.json.encode(reports))
        records.append(
            RoundRecord(
                number, state, number, len(reports), sorted(reports), 1, 0.5, 0, 0, 1.0, missed=missed, by_time=times
            )
        )
        if number % 7:
            continue
        restored = Standing()
        for told in records[-UNEARNED_ROUNDS:]:
            restored.restore(told)
        assert [owes(restored, device) for device in FLEET] == [owes(standing, device) for device in FLEET]
        assert survey(restored).worth == survey(standing).worth
        again = [play(copy.deepcopy(one), number + 1, {FLEET[0]: 1.0}, at_goal=False) for one in (standing, restored)]
        assert again[0] == again[1]


def test_a_restart_knows_that_a_late_update_has_earned_waiting():
    standing, restored = Standing(), Standing()
    restored.restore(record(standing, 1, all_but("d3")))
    found = survey(standing)
    standing.report("d3", 1, 70.0, counted=False)
    missed = standing.close(Outcome(2, found.worth, FLEET, skipped=found.skipped))
    assert missed == {}
    missed = standing.close(Outcome(2, found.worth, found.worth, skipped=found.skipped))
    assert missed == {"d3": "came too late: update of round 1"}
    times = msgspec.Raw(b'{"d3":70}')
    restored.restore(RoundRecord(2, "committed", 2, 9, found.worth, 1, 0.5, 0, 0, 1.0, missed=missed, by_time=times))
    assert restored.is_worth("d3") and restored.settled("d3", 1) is False
    assert survey(restored).skipped == {"d3": "takes 70 s, the others 1 s"}


def test_a_restart_knows_which_late_updates_count():
    """Found by simulation: what was folded into an abandoned round stays saved until a commit has it. And an update
    that came too late does not count because an earlier one of its device does."""
    restored = Standing()
    restored.restore(RoundRecord(2, "committed", 2, 2, ["d0", "d3"], 1, 0.5, 0, 0, 1.0))
    missed = {"d3": "came too late: update of round 2", "d0": "no update since round 3"}
    restored.restore(RoundRecord(4, "abandoned", 2, 1, [], 1, 0.5, 0, 0, 1.0, folded=[("d3", 2)], missed=missed))
    assert restored.settled("d3", 2) is True
    assert (restored.settled("d0", 2), restored.settled("d0", 3)) == (True, False)


def test_a_round_that_another_process_opened_teaches_no_quick_times():
    """Its devices had begun before, and some only send again what they had saved."""
    standing = Standing()
    standing.report("d0", 1, 20.0)
    for device, seconds in (("d0", 0.1), ("d1", 0.1)):
        standing.report(device, 2, seconds, resumed=True)
    assert standing.patience_s(["d0"]) == SLACK * 20.0
    assert standing.is_new("d1")
    standing.report("d0", 2, 30.0, resumed=True)
    assert standing.patience_s(["d0"]) == SLACK * 30.0


def test_it_is_known_which_updates_count():
    standing = Standing()
    for number, counted in ((3, True), (4, False), (7, True)):
        standing.report("d0", number, 1.0, counted)
    told = [standing.settled("d0", number) for number in range(1, 9)]
    assert told == [False, False, True, False, False, False, True, None]
    standing.report("d0", 200, None)
    assert standing.settled("d0", 7) is False, "too old to be asked for"
    standing.count("d0", 200, counted=False)
    standing.count("d0", 199, counted=True)
    assert (standing.settled("d0", 199), standing.settled("d0", 200)) == (True, False)
    assert standing.settled("new", 1) is None


def test_devices_that_are_away_and_not_asked_any_more_are_dropped():
    standing = Standing()
    play(standing, 1, all_but("d3"))
    for number in range(2, 2 * UNEARNED_ROUNDS + 1):
        play(standing, number, {"new": 1.0}, devices=["new"])
    assert list(standing._entries) == ["new"]


def test_a_present_device_that_is_asked_seldom_is_not_dropped():
    """Else each hung device of a large fleet would cost a deadline whenever the draw finds it."""
    standing = Standing()
    play(standing, 1, all_but("d3"))
    for number in range(2, 2 * UNEARNED_ROUNDS + 1):
        play(standing, number, {"new": 1.0}, devices=["new"], present=["new", "d3"])
    assert survey(standing, ["new", "d3"]).skipped == {"d3": "no update yet"}


def test_devices_that_come_and_go_under_ever_new_names_fill_no_memory(monkeypatch):
    monkeypatch.setattr("edgefl.coordinator.devices.standing.MOST_AWAY", 50)
    standing = Standing()
    for number in range(1, 80):
        play(standing, number, all_but("d3"), [*FLEET, *(f"n{number}-{i}" for i in range(20))])
        assert len(standing._entries) <= 50 + 3 * 30
    assert not standing.is_worth("d3"), "a device that is there is not dropped"
