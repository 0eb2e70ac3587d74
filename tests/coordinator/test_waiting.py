"""RoundCoordinator by hand: whom rounds wait for, how long, and how a device earns waiting again."""

from __future__ import annotations

import numpy as np
import pytest
from late import FOLD, restarted
from machines import (
    HASH,
    accumulator_of,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    make_update,
    of,
    open_round,
    report,
    round_in,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.devices.standing import LEAST_WAIT_S
from edgefl.coordinator.updates import held_back
from edgefl.coordinator.updates.credits import AT_ONCE, STALLED_S
from edgefl.coordinator.updates.receipts import EARNED, TOO_LATE
from edgefl.machine import Connected, Disconnected, Note, Tick
from edgefl.protocol.inbox import Missing, Receipt
from edgefl.protocol.round import UNEARNED_ROUNDS
from edgefl.protocol.update_header import UpdateHeader

DEADLINE_S = 60.0


def fleet(*devices, **config):
    return open_round(*devices, **({"min_reports": 1, "deadline_s": DEADLINE_S} | config))


def run_round(coordinator, *devices, now, seconds=1.0, between=()):
    """These devices report `seconds` after the opening, `between` comes before; the record and how long it took."""
    number, version, out = coordinator.round, coordinator.version, []
    for event in between:
        out += feed(coordinator, event, now=now)
    for device in devices:
        out += report(coordinator, device, now=now + seconds, round=number, version=version)
    while coordinator.round == number:
        out += feed(coordinator, Tick(), now=coordinator.wake_at)
    return commit_of(out).record


def times(coordinator, *devices, rounds=6, between=()):
    """The seconds that each of these rounds took, while only `devices` report."""
    records, now = [], coordinator.tally.opened_at
    for _ in range(rounds):
        records.append(run_round(coordinator, *devices, now=now, between=between))
        now += records[-1].seconds
    return [record.seconds for record in records]


def test_i07_a_device_that_never_reports_costs_a_few_times_the_others_once():
    coordinator = fleet("a", "b", "c")
    assert times(coordinator, "a", "b") == [LEAST_WAIT_S, 1, 1, 1, 1, 1]
    assert coordinator.presence.present() == ["a", "b", "c"]


def test_i07_a_newcomer_has_ten_times_as_long_as_the_median_of_the_reports_so_far():
    """No earlier round tells how long any of them takes. One that is missed is named, finishes, and is waited for."""
    coordinator = fleet(*"abcde", deadline_s=300)
    for device, seconds in zip("abcd", (2.0, 3.0, 5.0, 20.0), strict=True):
        report(coordinator, device, now=seconds)
    assert coordinator.wake_at == 50.0
    record = commit_of(feed(coordinator, Tick(), now=50.0)).record
    assert (record.devices, record.missed) == (list("abcd"), {"e": "no update yet"})
    assert coordinator.tally.opening.unearned == ["e"]
    assert word_to(report(coordinator, "e", now=51.0), "e").reason == EARNED
    assert coordinator.standing.owes("e") == 0


def test_i07_before_half_have_reported_a_round_with_newcomers_lasts_its_deadline():
    """The few that are quickest say little of the others. A round does not wait for those that leave."""
    coordinator = fleet(*"abcdef", deadline_s=300)
    for device in "ab":
        report(coordinator, device, now=1.0)
    assert coordinator.wake_at == 300.0
    feed(coordinator, status("c", "lost"), now=2.0)
    assert coordinator.wake_at == 300.0, "it waits for three, and two have reported"
    feed(coordinator, status("d", "lost"), now=3.0)
    assert coordinator.wake_at == LEAST_WAIT_S


def test_i07_a_newcomer_is_waited_for_as_long_as_the_slowest_device_whose_time_is_known():
    coordinator = fleet("a", "b", deadline_s=300)
    run_round(coordinator, "a", "b", now=0.0)
    report(coordinator, "a", now=2.0, round=2, version=1)
    run_round(coordinator, "b", now=1.0, seconds=8.0)
    feed(coordinator, status("c"), now=9.5)
    run_round(coordinator, "a", "b", "c", now=9.0)
    feed(coordinator, status("d"), now=10.5)
    number, version = coordinator.round, coordinator.version
    for device in "abc":
        report(coordinator, device, now=11.0, round=number, version=version)
    record = run_round(coordinator, now=11.0)
    assert (record.seconds, record.missed) == (3 * 8.0, {"d": "no update yet"})


def test_a_newcomer_has_the_whole_deadline_in_a_round_that_another_process_may_have_opened():
    """The others may only send again what they had saved."""
    coordinator = fleet("a", "b", "c", min_reports=2)
    again = restarted(coordinator, [], late="drop", min_reports=2, deadline_s=DEADLINE_S)
    feed(again, *map(status, "abc"), Connected())
    for device in "ab":
        report(again, device, now=0.1)
    assert again.wake_at == again.tally.closes_at == DEADLINE_S


def test_i07_once_report_times_are_known_a_device_that_stops_costs_a_few_times_the_others():
    coordinator = fleet("a", "b", "c", deadline_s=600)
    assert times(coordinator, "a", "b", "c", rounds=3) == [1, 1, 1]
    assert times(coordinator, "a", "b", rounds=4) == [10.0, 1, 1, 1]
    coordinator = fleet("a", "b", "c", deadline_s=600)
    assert [r.seconds for r in [run_round(coordinator, "a", "b", "c", now=0.0, seconds=50.0)]] == [50.0]
    assert run_round(coordinator, "a", "b", now=50.0, seconds=40.0).seconds == 3 * 50.0


def test_a_round_with_too_few_reports_goes_on_beyond_its_patience():
    coordinator = fleet("a", "b", "c", min_reports=2, deadline_s=100)
    run_round(coordinator, "a", "b", "c", now=0.0)
    report(coordinator, "a", round=2, version=1, now=2.0)
    assert commit_of(feed(coordinator, Tick(), now=50.0)) is None
    assert commit_of(report(coordinator, "b", round=2, version=1, now=60.0)).record.devices == ["a", "b"]


def test_a_round_with_a_goal_waits_for_it_until_the_deadline():
    coordinator = fleet("a", "b", "c", goal=3, deadline_s=100)
    run_round(coordinator, "a", "b", "c", now=0.0)
    assert run_round(coordinator, "a", "b", now=1.0).seconds == 100.0


def test_the_spread_of_reports_is_added_to_what_a_round_waits():
    coordinator = fleet("a", "b", updates_per_s=0.5, deadline_s=600)
    run_round(coordinator, "a", "b", now=0.0)
    assert coordinator.tally.pacing.spread_s == 4.0
    assert run_round(coordinator, "a", now=1.0).seconds == 14.0


@pytest.mark.parametrize("sign", [[status("c", boot=2)], [status("c", "lost"), status("c")], [status("c", "training")]])
def test_i07_no_status_renews_waiting(sign):
    coordinator = fleet("a", "b", "c")
    times(coordinator, "a", "b", rounds=1)
    assert times(coordinator, "a", "b", between=sign) == [1] * 6


def test_i07_a_device_that_raises_its_boot_each_second_slows_one_round_only():
    coordinator, boot, took = fleet("a", "b", "c"), 1, []
    for _ in range(10):
        opened, number = coordinator.tally.opened_at, coordinator.round
        for second in range(1, 100):
            boot += 1
            feed(coordinator, status("c", boot=boot), Tick(), now=opened + second)
            if second == 1:
                for device in "ab":
                    report(coordinator, device, round=number, version=coordinator.version, now=opened + 1)
            if coordinator.round > number:
                took.append(second)
                break
    assert took[0] == LEAST_WAIT_S and took[1:] == [1] * 9


def test_i07_a_device_that_sends_one_part_a_round_slows_one_round_only():
    coordinator = fleet("a", "b", "c")
    took = []
    for number in range(1, 8):
        part = update_parts("c", round=number, version=number - 1)[0]
        took.append(run_round(coordinator, "a", "b", now=coordinator.tally.opened_at, between=[part]).seconds)
    assert took == [LEAST_WAIT_S] + [1] * 6


def test_a_device_that_goes_in_mid_round_and_does_not_report_has_missed_it():
    coordinator = fleet("a", "b", "c")
    times(coordinator, "a", "b", "c", rounds=1)
    feed(coordinator, status("c", "lost"), now=1.5)
    record = run_round(coordinator, "a", "b", now=2.0)
    assert record.missed == {"c": "no update since round 1"}
    feed(coordinator, status("c", boot=2), now=3.5)
    assert "c" not in coordinator.tally.waiting


def test_a_device_that_was_away_when_the_round_opened_has_missed_nothing():
    coordinator = fleet("a", "b", "c")
    run_round(coordinator, "a", "b", now=1.0, between=[*update_parts("c"), status("c", "disconnected")])
    for _ in range(3):
        assert run_round(coordinator, "a", "b", now=coordinator.tally.opened_at).missed == {}
    feed(coordinator, status("c", boot=2), now=coordinator.tally.opened_at)
    assert "c" in coordinator.tally.waiting


def test_if_nobody_has_earned_it_all_are_waited_for():
    coordinator = fleet("a", "b", deadline_s=10.0)
    for _ in range(2):
        run_round(coordinator, now=coordinator.tally.opened_at)
    assert not any(map(coordinator.standing.is_worth, "ab"))
    assert sorted(coordinator.tally.waiting) == ["a", "b"]


def test_the_log_and_the_record_name_who_is_not_waited_for():
    coordinator = fleet("a", "b", "c")
    first = run_round(coordinator, "a", "b", now=0.0)
    assert (first.missed, first.times) == ({"c": "no update yet"}, {"a": 1.0, "b": 1.0})
    out = []
    for number in (2, 3):
        for device in "ab":
            out += report(coordinator, device, round=number, version=number - 1, now=10.0 + number)
    notes = [note.text for note in of(out, Note) if "waits for" in note.text]
    assert notes == []  # nothing has changed since round 2 opened
    assert coordinator.snapshot().skipped == {"c": "no update yet"}
    out = report(coordinator, "c", round=4, version=3, now=14.0) + report(
        coordinator, "a", round=4, version=3, now=14.0
    )
    out += report(coordinator, "b", round=4, version=3, now=14.0)
    assert [n.text for n in of(out, Note) if "waits for" in n.text] == ["round 5 waits for 3 of 3 devices"]


def test_the_line_names_a_dozen_and_counts_the_rest():
    devices = [f"d{i:02}" for i in range(30)]
    coordinator = fleet(*devices)
    out = []
    for device in devices[15:]:
        out += report(coordinator, device, now=1.0)
    out += feed(coordinator, Tick(), now=DEADLINE_S)
    (note,) = [note.text for note in of(out, Note) if "waits for" in note.text]
    assert note.startswith("round 2 waits for 15 of 30 devices; not for d00 (no update yet), d01 (no update yet), ")
    assert note.endswith("d11 (no update yet), 3 more")


def test_i07_a_device_that_misses_as_soon_as_it_is_waited_for_makes_ever_fewer_rounds_wait():
    """After each miss it takes twice as many updates, at most 32, until rounds wait for it again."""
    coordinator, long = fleet("a", "b", "c"), []
    for _ in range(150):
        number = coordinator.round
        devices = "ab" if "c" in coordinator.tally.waiting and number > 1 else "cab"
        record = run_round(coordinator, *devices, now=coordinator.tally.opened_at)
        assert record.devices == sorted(devices), "it is asked, and counts, also while no round waits for it"
        if record.seconds == LEAST_WAIT_S:
            long.append(number)
    assert long == [2, 4, 7, 12, 21, 38, 71, 104, 137]


def test_the_log_and_the_receipt_say_how_many_updates_a_device_owes():
    coordinator = demoted()
    run_round(coordinator, "c", "a", "b", now=12.0)
    assert run_round(coordinator, "a", "b", now=13.0).missed == {"c": "no update since round 3; has to bring 2 more"}
    assert coordinator.snapshot().skipped == {"c": "no update since round 3; has to bring 2 more"}
    out = late(coordinator, round=4, version=3, now=25.0)
    assert word_to(out, "c").reason == f"{EARNED} after 1 more"
    assert f"round 4: update of c: {EARNED} after 1 more" in [note.text for note in of(out, Note)]
    assert "c" not in coordinator.tally.waiting
    report(coordinator, "c", now=26.0, round=5, version=4)
    run_round(coordinator, "a", "b", now=26.0)
    assert "c" not in coordinator.tally.waiting, "while one round is open, one update pays"
    run_round(coordinator, "c", "a", "b", now=coordinator.tally.opened_at)
    assert "c" in coordinator.tally.waiting


# Cohorts


def test_cohorts_count_devices_worth_waiting_for_and_ask_the_others_on_top():
    devices = [f"d{i:02}" for i in range(40)]
    for rule in ("list", "draw"):
        coordinator = make_coordinator(fraction=0.5, cohort=rule, min_reports=1, deadline_s=DEADLINE_S)
        feed(coordinator, *map(status, devices), Connected())
        for device in devices[:20]:
            coordinator.standing._entry(device).owes = 1
        others, worth = [], []
        for _ in range(30):
            asked = coordinator.tally.opening.asked
            waiting = set(coordinator.tally.waiting)
            run_round(coordinator, *(set(asked) & set(devices[20:])), now=coordinator.tally.opened_at)
            others.append(sum(device in devices[:20] for device in asked))
            worth.append(sum(device in devices[20:] for device in asked))
            assert len(others) == 1 or waiting == set(asked) & set(devices[20:])
        assert sum(worth[1:]) / 29 == pytest.approx(10, abs=1.5)
        assert sum(others[1:]) / 29 == pytest.approx(10, abs=2.0)


def test_a_goal_derived_from_the_fraction_counts_devices_worth_waiting_for():
    devices = [f"d{i:02}" for i in range(40)]
    coordinator = make_coordinator(fraction=0.25, over_select=1.2, min_reports=1, deadline_s=DEADLINE_S)
    feed(coordinator, *map(status, devices))
    for device in devices[:20]:
        coordinator.standing._entry(device).owes = 1
    feed(coordinator, Connected())
    assert coordinator.tally.goal == 5


def test_a_round_that_needs_more_than_are_worth_waiting_for_asks_all():
    for rule in ("list", "draw"):
        coordinator = make_coordinator(fraction=0.5, cohort=rule, min_reports=3, deadline_s=DEADLINE_S)
        feed(coordinator, *map(status, "abcd"))
        coordinator.standing._entry("a").owes = coordinator.standing._entry("b").owes = 1
        message = round_in(feed(coordinator, Connected()))
        assert all(message.asks(device) for device in "abcd")


# Earning it again


def demoted(*others, **config):
    """A coordinator in round 3, which does not wait for c: the others report after two seconds, c reported in round 1
    and missed round 2, from 2 s to 12 s."""
    coordinator = fleet("a", "b", "c", *others, **config)
    run_round(coordinator, "a", "b", "c", *others, now=0.0, seconds=2.0)
    assert run_round(coordinator, "a", "b", *others, now=2.0, seconds=2.0).seconds == 10.0
    assert coordinator.tally.opening.unearned == ["c"]
    return coordinator


def late(coordinator, device="c", *, now, **changes):
    """The device's update of round 2."""
    return report(coordinator, device, now=now, **({"round": 2, "version": 1} | changes))


def test_a_late_update_under_late_drop_earns_waiting_again_and_goes_into_no_model():
    coordinator = demoted()
    before = accumulator_of(coordinator)
    out = late(coordinator, now=13.0)
    assert word_to(out, "c") == Receipt(2, 1, "rejected", EARNED, folded=3)
    assert accumulator_of(coordinator) == before
    assert "c" in coordinator.tally.waiting, "it takes part in the open round now"
    record = run_round(coordinator, "a", "b", "c", now=13.0)
    assert (record.devices, record.missed) == (["a", "b", "c"], {})


def test_a_late_update_of_a_device_that_takes_far_too_long_is_no_reason_to_wait():
    """Until it is quick again: then it counts within two rounds."""
    coordinator = demoted()
    while coordinator.tally.opened_at < 52.0:
        run_round(coordinator, "a", "b", now=coordinator.tally.opened_at, seconds=2.0)
    now = coordinator.tally.opened_at
    assert word_to(late(coordinator, now=now), "c").reason == EARNED
    assert "c" not in coordinator.tally.waiting
    number = coordinator.round  # c begins this round now
    run_round(coordinator, "a", "b", now=now, seconds=2.0)
    assert coordinator.tally.opening.skipped == {"c": "takes 50 s, the others 2 s"}
    assert coordinator.tally.opening.unearned == ["c"], "it may finish what it begins, and prove to be quick again"
    report(coordinator, "c", round=number, version=number - 1, now=now + 3)
    assert run_round(coordinator, "a", "b", "c", now=now + 3, seconds=2.0).devices == ["a", "b", "c"]
    assert coordinator.tally.opening.skipped == {}


def test_one_late_update_earns_once():
    coordinator = demoted()
    late(coordinator, now=13.0)
    run_round(coordinator, "a", "b", now=13.0)
    assert coordinator.tally.opening.unearned == ["c"]
    now = coordinator.tally.opened_at
    assert word_to(late(coordinator, now=now), "c") == Receipt(2, 1, "rejected", TOO_LATE, folded=coordinator.round)
    assert not coordinator.standing.is_worth("c")


@pytest.mark.parametrize("policy", [{}, FOLD], ids=["dropped", "folded"])
def test_i07_a_late_update_that_is_too_long_proves_nothing_against_its_device(policy):
    """Seed 1007029: its round had asked for statistics, and the aggregator was restored from a backup since."""
    coordinator = demoted(**policy)
    parts = update_parts("c", bytes(100_000), round=2, version=1)
    out = feed(coordinator, *parts, *parts, now=12.0)
    assert not coordinator.admission.noise.muted and "c" in coordinator.presence.present()
    assert word_to(out, "c") == Receipt(2, 1, "rejected", TOO_LATE, folded=coordinator.round), "it sends it no more"
    parts = update_parts("a", bytes(100_000), round=coordinator.round, version=coordinator.version)
    feed(coordinator, *parts, now=13.0)
    assert "a" in coordinator.admission.noise.muted, "of the open round, no honest device sends it"


def test_a_late_update_that_did_count_is_told_so():
    """Its receipt was lost. A device that took it for dropped would add what encoding lost to the next update."""
    coordinator = demoted()
    late(coordinator, round=3, version=2, now=13.0)
    run_round(coordinator, "a", "b", now=13.0)
    run_round(coordinator, "a", "b", now=coordinator.tally.opened_at)
    assert coordinator.tally.opening.unearned == ["c"]
    out = late(coordinator, round=3, version=2, now=coordinator.tally.opened_at)
    assert word_to(out, "c") == Receipt(3, 1, "counted", folded=3)
    assert not coordinator.standing.is_worth("c")


def test_a_late_update_of_a_round_that_was_opened_again_with_another_model_earns_nothing_and_is_told_so():
    """Found by simulation: without a receipt its device reports it for 100 rounds, and takes part in none."""
    coordinator = demoted()
    assert word_to(late(coordinator, now=13.0, version=2), "c") == Receipt(2, 1, "rejected", TOO_LATE, folded=3)
    assert not coordinator.standing.is_worth("c")


@pytest.mark.parametrize("foreign", [{"federation": HASH ^ 1}, {"codec": 2}])
def test_a_late_update_of_another_run_or_codec_earns_nothing(foreign):
    coordinator = demoted()
    assert word_to(late(coordinator, now=13.0, **foreign), "c") is None
    assert not coordinator.standing.is_worth("c") and coordinator.dropped["c"] == 2


@pytest.mark.parametrize(
    "blob",
    [
        make_update()[:-4],
        make_update()[:-4] + np.float32(np.nan).tobytes(),
        UpdateHeader(0, 0, 0.0, 0, 9, 5, 0.5).to_bytes(),
        b"\1" * len(make_update()),
    ],
)
def test_i16_a_late_update_that_is_not_valid_is_rejected_and_earns_nothing(blob):
    coordinator = demoted()
    receipt = word_to(late(coordinator, now=13.0, blob=blob), "c")
    assert receipt.outcome == "rejected" and receipt.reason != EARNED
    assert not coordinator.standing.is_worth("c")


def test_a_late_update_whose_device_is_not_named_is_dropped():
    coordinator = demoted()
    assert late(coordinator, "a", now=13.0) == []
    assert coordinator.late == 2


def test_an_update_too_old_earns_nothing():
    coordinator = demoted()
    for _ in range(UNEARNED_ROUNDS):
        run_round(coordinator, "a", "b", now=coordinator.tally.opened_at)
    assert word_to(late(coordinator, now=999.0), "c").reason == TOO_LATE
    assert not coordinator.standing.is_worth("c")
    assert word_to(late(coordinator, round=4, version=3, now=999.0), "c").reason == EARNED


def test_parts_of_a_late_update_that_are_missing_are_asked_for():
    coordinator = demoted()
    parts = update_parts("c", part_bytes=1024, round=2, version=1)
    feed(coordinator, parts[0], now=13.0)
    assert word_to(feed(coordinator, Tick(), now=19.0), "c") == Missing(2, [1, 2, 3])
    assert word_to(feed(coordinator, *parts[1:], now=20.0), "c").reason == EARNED


def test_i13_few_late_updates_are_received_at_once_and_stalled_ones_make_way():
    many = [f"x{i}" for i in range(AT_ONCE + 2)]
    coordinator = fleet("a", *many)
    for _ in range(2):
        run_round(coordinator, "a", now=coordinator.tally.opened_at)
    assert set(coordinator.tally.opening.unearned) == set(many)
    now = coordinator.tally.opened_at
    for device in many:
        feed(coordinator, update_parts(device)[0], now=now)
    arriving = coordinator.reception.credits._arriving
    assert list(arriving) == many[:AT_ONCE]
    assert word_to(report(coordinator, many[-1], now=now + STALLED_S), many[-1]).reason == EARNED
    assert list(arriving) == many[1:AT_ONCE]


def test_i13_late_updates_that_count_in_no_round_make_room_first(monkeypatch):
    monkeypatch.setattr("edgefl.coordinator.updates.reception.BUDGET_BYTES", 5000)
    coordinator = demoted()
    feed(coordinator, *update_parts("c", part_bytes=1024, round=2, version=1)[:3], now=13.0)
    feed(coordinator, *update_parts("a", part_bytes=1024, round=3, version=2)[:3], now=13.0)
    assert coordinator.reception.credits.partial() == {}


def test_i07_an_update_that_comes_between_rounds_makes_no_device_slow():
    """Found in an hour of churn: a healthy device was late once, and took an interval longer ever after."""
    coordinator = fleet("a", "b", "c", interval_s=100.0, **FOLD)
    run_round(coordinator, "a", "b", "c", now=0.0, seconds=2.0)
    feed(coordinator, Tick(), now=100.0)
    run_round(coordinator, "a", "b", now=100.0, seconds=2.0)
    assert word_to(late(coordinator, now=111.0), "c") == Receipt(2, 1, "counted", folded=3)
    feed(coordinator, Tick(), now=200.0)
    assert coordinator.tally.waiting == ["a", "b", "c"]


def test_a_late_update_earns_waiting_also_while_no_round_is_open():
    """Rounds of a second, one a minute, are too short for an update over a slow link."""
    coordinator = fleet("a", "b", "c", interval_s=100.0)
    for device in "ab":
        report(coordinator, device, now=1.0)
    feed(coordinator, Tick(), now=DEADLINE_S)
    first, second = update_parts("c")
    feed(coordinator, first, now=70.0)
    assert coordinator.wake_at < 100.0
    asked = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert word_to(asked, "c") == Missing(1, [1]), "a part that got lost is asked for"
    assert word_to(feed(coordinator, second, now=80.0), "c") == Receipt(1, 1, "rejected", EARNED, folded=2)
    feed(coordinator, Tick(), now=100.0)
    assert coordinator.tally.opening.skipped == {"c": "takes 80 s, the deadline is 60 s"}, "it has earned waiting"


def test_after_a_restart_an_update_of_the_round_that_comes_next_is_held_back():
    coordinator = fleet("a", "b", "c", min_reports=2)
    records = [run_round(coordinator, "a", "b", now=0.0)]
    again = restarted(coordinator, records, late="drop", min_reports=2)
    feed(again, Connected(), status("c"))
    assert (again.phase, again.round) == ("waiting", 2)
    assert report(again, "c", round=2, version=1) == []
    assert word_to(report(again, "c"), "c").reason == EARNED
    assert word_to(feed(again, status("a"), status("b")), "c") == Missing(2, [0])


def test_while_no_round_is_open_only_a_device_that_lacks_waiting_is_told_that_it_is_late():
    coordinator = fleet("a", "b", goal=1, interval_s=100.0)
    report(coordinator, "a", now=1.0)
    assert coordinator.phase == "waiting"
    assert report(coordinator, "b", now=2.0) == [], "the round closed without it at its goal"


def test_i13_few_devices_are_remembered_whose_updates_no_round_could_receive(monkeypatch):
    monkeypatch.setattr(held_back, "LIMIT", 2)
    held = held_back.HeldBack()
    for device, number in (("a", 3), ("b", 1), ("c", 1), ("a", 2), ("b", 4)):
        held.add(device, number, 0.0)
    assert held.take() == [("a", 3), ("b", 4)]
    assert held.take() == []


def test_a_round_that_only_evaluates_earns_by_its_header():
    scores = UpdateHeader(0, 0, 0.0, 0, 9, 5, 0.5, 0.5).to_bytes()
    manifest = make_manifest(holdout=0.2)
    coordinator = make_coordinator(manifest=manifest, evaluate_every=2, min_reports=1, deadline_s=DEADLINE_S)
    feed(coordinator, *map(status, "abc"), Connected())
    own = {"federation": coordinator.announcer.hash}
    for device in "abc":
        report(coordinator, device, now=2.0, **own)
    for device in "ab":
        late(coordinator, device, blob=scores, now=4.0, **own)
    out = feed(coordinator, Tick(), now=12.0)
    assert commit_of(out).record.state == "evaluated" and round_in(out).unearned == ["c"]
    assert word_to(late(coordinator, blob=scores, now=13.0, **own), "c").reason == EARNED
    assert coordinator.standing.is_worth("c")


def test_under_late_fold_an_update_in_the_window_counts_and_earns():
    coordinator = demoted(**FOLD)
    assert word_to(late(coordinator, now=13.0), "c") == Receipt(2, 1, "counted", folded=3)
    assert "c" in coordinator.tally.waiting


# Restarts


def test_a_restart_waits_for_the_same_devices():
    coordinator = fleet("a", "b", "c", "d")
    records = [run_round(coordinator, "a", "b", "c", "d", now=0.0, seconds=2.0)]
    records.append(run_round(coordinator, "a", "b", "d", now=2.0, seconds=2.0))
    for device in "abd":
        out = late(coordinator, device, round=3, version=2, now=52.0 if device == "d" else 14.0)
    records.append(commit_of(out).record)
    again = restarted(coordinator, records, late="drop")
    feed(again, *map(status, "abcd"), Connected())
    assert again.tally.opening.skipped == coordinator.tally.opening.skipped
    assert set(again.tally.opening.skipped) == {"c", "d"}
    assert word_to(late(again, now=1.0), "c") == Receipt(2, 2, "rejected", EARNED, folded=again.round)
    assert again.standing.is_worth("c")


def test_after_an_outage_of_the_broker_reports_have_as_long_to_come_as_if_it_had_just_opened():
    coordinator = fleet("a", "b", "c")
    for _ in range(2):
        run_round(coordinator, "a", "b", "c", now=coordinator.tally.opened_at)
    began, number, version = coordinator.tally.opened_at, coordinator.round, coordinator.version
    report(coordinator, "a", now=began + 1, round=number, version=version)
    feed(coordinator, Disconnected(), now=began + 2)
    feed(coordinator, Connected(), now=began + 40)
    assert (coordinator.round, coordinator.wake_at) == (number, began + 40 + LEAST_WAIT_S)
    report(coordinator, "b", now=began + 41, round=number, version=version)
    out = feed(coordinator, Tick(), now=began + 40 + LEAST_WAIT_S)
    assert commit_of(out).record.devices == ["a", "b"]


def test_outages_of_the_broker_put_no_deadline_off():
    coordinator = fleet("a", "b")
    run_round(coordinator, "a", "b", now=0.0)
    ends_at, number = coordinator.tally.closes_at, coordinator.round
    report(coordinator, "a", now=ends_at - 55, round=number, version=1)
    feed(coordinator, Disconnected(), Connected(), now=ends_at - 5)
    assert coordinator.wake_at == ends_at
