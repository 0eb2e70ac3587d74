"""What one update may move a model: bounds, weights, the first round, restarts; and any order gives the same bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from machines import P, accumulator_of, commit_of, feed, make_coordinator, make_update, of, report, run_out, status
from machines import open_round as open_unbounded

from edgefl.coordinator.events import LateUpdate, ReloadedLate, Rollback
from edgefl.coordinator.updates.claims import Claims, Counted
from edgefl.coordinator.updates.influence import Bound, Influence, median, norm_of
from edgefl.errors import ProtocolError
from edgefl.machine import Connected, Note, Publish, Tick
from edgefl.protocol.inbox import Inbox
from edgefl.protocol.messages import decode
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import AdmissionSettings, TrainSettings
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.step import Step
from edgefl.strategies.waiting_room import WaitingRoom
from edgefl.strategies.weights import Weights
from edgefl.strategies.whole.feddyn import FedDyn

BOUNDED = AdmissionSettings(influence=2.0)
UNIT = np.float32(1 / np.sqrt(P))  # a delta of this everywhere has the norm 1


def open_round(*devices, settings=BOUNDED, start=None, **options):
    return open_unbounded(*devices, start={"admission": settings, **(start or {})}, **options)


def tell(coordinator, device, *, now=1.0, round=1, version=0, **update):
    """One device's whole update, of n `num_examples` and this delta."""
    return report(coordinator, device, now=now, round=round, version=version, blob=make_update(**update))


def run_round(coordinator, claims, now=1.0):
    """One round in which devices report n and ‖Δ‖; its commit."""
    out = []
    for device, (n, norm) in claims.items():
        out += tell(
            coordinator, device, now=now, round=coordinator.round, version=coordinator.version, num_examples=n,
            delta=norm * UNIT,
        )  # fmt: skip
    return commit_of(out) or commit_of(run_out(coordinator))


FOUR = {"a": (10, 1.0), "b": (10, 1.0), "c": (10, 1.0), "d": (10, 1.0)}


def test_median_is_the_lower_one_of_two():
    assert [median(v) for v in ([3], [1, 3], [1, 3, 9], [9, 4, 3, 1])] == [3, 1, 3, 3]


def test_norm_is_that_of_the_delta():
    assert norm_of(np.float32([3, 4])) == 5.0
    assert norm_of(np.zeros(3, np.float32)) == 0.0


def bound(factor=2.0, claims=None, sizes=None):
    return Bound.of(factor, claims or FOUR, (sizes or {}).get)


@pytest.mark.parametrize(
    "claim, weight",
    [
        ((10, 1.0), 10), ((20, 1.0), 20), ((21, 1.0), 20), ((200, 1.0), 20), ((10, 4.0), 5), ((1, 20.0), 1),
        ((5000, 0.0), 20), ((20, 0.01), 20),  # a short delta holds the others back: it counts as a typical one
    ],
)  # fmt: skip
def test_above_the_bound_the_weight_is_the_largest_within_it(claim, weight):
    assert bound().weight(claim, None) == weight


@pytest.mark.parametrize(
    "claim, code",
    [((10, 20.1), "influence"), ((1, 1e6), "influence"), ((10001, 1.0), "examples"), ((2**24, 1e-9), "examples")],
)
def test_beyond_ten_times_an_update_is_refused(claim, code):
    with pytest.raises(ProtocolError) as refused:
        bound().weight(claim, None)
    assert refused.value.code == code


def test_a_device_that_is_enrolled_with_more_examples_may_count_more():
    sizes = {"a": 10, "b": 10, "c": 10, "big": 1000}
    claims = {"a": (10, 1.0), "b": (10, 1.0), "c": (10, 1.0), "big": (1000, 2.0)}
    fair = bound(claims=claims, sizes=sizes)
    assert fair.weight((1000, 2.0), 1000) == 1000
    assert fair.weight((1000, 2.0), None) == 10
    assert fair.weight((10**5, 1.0), 10**5) == 10**5


def test_a_generous_limit_for_some_devices_refuses_no_other_device():
    """Three are enrolled with far more examples than they have; by the median, the others are too large."""
    sizes = dict.fromkeys("abc", 10**6)
    claims = dict.fromkeys("abcde", (100, 1.0))
    loose = bound(claims=claims, sizes=sizes)
    assert loose.weight((100, 1.0), 10**6) == 100
    assert loose.weight((100, 1.0), None) == 1
    with pytest.raises(ProtocolError):
        loose.weight((100, 20.1), None)


def test_no_update_has_counted_long_ago():
    influence = Influence(2.0, None, lambda device: None)
    influence._last = {"a": (1, (10, 1.0)), "b": (50, (10, 3.0))}
    assert influence.open(101).typical == 1.0
    assert influence.open(102).typical == 3.0


def test_without_a_factor_nothing_is_bounded():
    coordinator = open_round("a", "b", settings=AdmissionSettings())
    record = run_round(coordinator, {"a": (10, 1.0), "b": (2**24, 0.2)}).record
    assert (record.num_examples, record.influence, record.lowered) == (10 + 2**24, {}, {})


def test_the_first_round_waits_for_its_own_median():
    coordinator = open_round(*"abcde")
    before = accumulator_of(coordinator)
    for device in "abcd":
        tell(coordinator, device, num_examples=10, delta=UNIT)
    assert accumulator_of(coordinator) == before
    assert coordinator.tally.reports == 4
    out = tell(coordinator, "e", num_examples=1000, delta=-UNIT)
    record = commit_of(out).record
    assert (record.num_examples, record.lowered) == (60, {"e": 20})
    assert record.influence == dict.fromkeys("abcd", (10, 1.0)) | {"e": (1000, 1.0)}
    np.testing.assert_allclose(coordinator.params, commit_of(out).params)
    assert lowered(out) == [
        "round 1: update of e counts with the weight 20, not 1000: it is 50 times the bound on influence"
    ]


def lowered(out):
    """What the log says of lowered weights; hosting/repeats.py writes one line of a kind a minute."""
    return [note.text for note in of(out, Note) if note.kind == "lowered of e"]


def test_the_log_names_a_device_whose_weight_is_lowered():
    coordinator = open_round(*"abcde")
    run_round(coordinator, FOUR | {"e": (10, 1.0)})
    out = tell(coordinator, "e", round=2, version=1, num_examples=10, delta=4 * UNIT)
    assert lowered(out) == [
        "round 2: update of e counts with the weight 5, not 10: it is 2 times the bound on influence"
    ]
    assert lowered(tell(coordinator, "a", round=2, version=1, num_examples=20, delta=UNIT)) == []


def test_an_update_that_has_waited_can_be_refused():
    coordinator = open_round(*"abcde", min_reports=4)
    for device in "abcd":
        tell(coordinator, device, num_examples=10, delta=UNIT)
    record = commit_of(tell(coordinator, "e", num_examples=10, delta=100 * UNIT)).record
    assert (record.devices, record.rejected, record.reported) == (list("abcd"), 1, 4)
    assert record.refused == {"e": {"influence": 1}}


def test_of_two_updates_in_one_round_the_newer_one_tells():
    claims = Claims()
    for counted in (Counted(2, 10, 1.0, 10), Counted(1, 90, 1.0, 20)):
        claims.add("a", counted)
    assert (bytes(claims.to_json()), claims.lowered) == (b'{"a":[10,1.0]}', {})


def test_a_late_update_that_has_waited_can_be_refused():
    """Round 1 was abandoned, so nothing has counted when its update comes. It is dropped for good."""
    coordinator = open_round(*"abcde", min_reports=4, late="fold", deadline_s=10.0)
    assert commit_of(run_out(coordinator)).record.state == "abandoned"
    now = coordinator.tally.opened_at + 1
    tell(coordinator, "e", now=now, round=1, num_examples=10, delta=100 * UNIT)
    assert coordinator.tally.folded and coordinator.standing.settled("e", 1)
    commit = run_round(coordinator, FOUR, now=now)
    assert (commit.record.devices, commit.record.folded, commit.drop) == (list("abcd"), [], [("e", 1)])
    assert commit.record.refused["e"] == {"influence": 1}
    assert not coordinator.standing.settled("e", 1)
    assert coordinator.reception.closed.get(1).counted_in("e") is None


def test_too_few_reports_are_left_after_the_first_rounds_median():
    coordinator = open_round(*"abc")
    params = coordinator.params
    for device in "ab":
        tell(coordinator, device, num_examples=10, delta=UNIT)
    record = commit_of(tell(coordinator, "c", num_examples=10, delta=100 * UNIT)).record
    assert (record.state, record.version) == ("abandoned", 0)
    assert coordinator.params is params


def test_a_configured_bound_leaves_nobody_waiting():
    coordinator = open_round("a", "b", settings=AdmissionSettings(influence=2.0, first_influence=20.0))
    before = accumulator_of(coordinator)
    tell(coordinator, "a", num_examples=10, delta=UNIT)
    assert accumulator_of(coordinator) != before
    assert commit_of(tell(coordinator, "b", num_examples=100, delta=UNIT)).record.lowered == {"b": 20}


def test_what_has_waited_in_a_round_that_a_roll_back_ended_counts_nowhere():
    coordinator = open_round(*"abc", settings=BOUNDED)
    tell(coordinator, "a", num_examples=10, delta=UNIT)
    feed(coordinator, Rollback("1", 0, coordinator.params + 1))
    assert (coordinator.round, coordinator.version, len(coordinator.admission.room)) == (2, 1, 0)
    record = run_round(coordinator, dict.fromkeys("abc", (10, 1.0)), now=coordinator.tally.opened_at + 1).record
    assert record.num_examples == 30


def test_what_waits_is_bounded():
    room = WaitingRoom(max_bytes=5000)
    coordinator = open_round(*"abc", start={"room": room}, min_reports=1)
    tell(coordinator, "a", num_examples=10, delta=UNIT)
    tell(coordinator, "b", num_examples=10, delta=UNIT)
    record = commit_of(tell(coordinator, "c", num_examples=10, delta=UNIT)).record
    assert (record.devices, record.refused) == (["a"], {"b": {"room": 1}, "c": {"room": 1}})
    assert len(room) == 0


def test_i02_any_order_gives_the_same_bits_with_bounds():
    """First round and bounded rounds; one update is above the bound, one is refused."""
    claims = FOUR | {"e": (70, 2.5), "f": (10, 90.0)}
    found = set()
    for order in itertools.islice(itertools.permutations(claims), 0, 720, 97):
        coordinator = open_round(*claims, min_reports=3)
        for _ in range(3):
            run_round(coordinator, {device: claims[device] for device in order}, now=coordinator.tally.opened_at + 1)
        found.add(coordinator.params.tobytes())
    assert len(found) == 1


def test_a_restart_computes_the_same_bound():
    coordinator = open_round(*"abcd")
    records = []
    for round in range(4):
        claims = {device: (10 + round, 1.0 + index / 8) for index, device in enumerate("abcd")}
        records.append(run_round(coordinator, claims, now=coordinator.tally.opened_at + 1).record)
    again = make_coordinator(
        start={
            "admission": BOUNDED, "recent": records, "round": coordinator.round, "version": coordinator.version,
            "attempt": 2,
        },
        min_reports=4,
    )  # fmt: skip
    feed(again, *map(status, "abcd"), Connected())
    assert again.admission.bound == coordinator.admission.bound is not None


def test_an_abandoned_round_moves_no_bound():
    coordinator = open_round(*"ab", settings=BOUNDED)
    run_round(coordinator, {"a": (10, 1.0), "b": (10, 1.0)})
    before = coordinator.admission.bound
    tell(coordinator, "a", now=5.0, round=2, version=1, num_examples=10, delta=0.5 * UNIT)
    assert commit_of(run_out(coordinator)).record.state == "abandoned"
    assert coordinator.admission.bound == before


@pytest.mark.parametrize("there", ["e", "de"])
def test_devices_that_were_alone_for_some_rounds_lock_no_other_device_out(there):
    """Theirs is the only bound there is when the others come. That refuses them once, and their claims count then."""
    short, there = {"e": (10, 1e-6)}, dict.fromkeys(there, (10, 1.0))
    coordinator = open_round(*"abcde", min_reports=len(there), deadline_s=10.0)
    for _ in range(3):
        run_round(coordinator, there | short, now=coordinator.tally.opened_at + 1)
    records = [
        run_round(coordinator, FOUR | short, now=coordinator.tally.opened_at + 1).record for _ in range(2)
    ]  # fmt: skip
    assert records[0].devices == ["e"] or records[0].state == "abandoned"
    assert records[0].refused["a"] == {"influence": 1}
    assert (records[1].devices, records[1].refused) == ([*"abcde"], {})


@pytest.mark.parametrize("devices", ["ab", "abc"])
def test_the_median_of_two_devices_puts_nobody_into_quarantine(devices):
    """Nobody can tell which of the two is wrong."""
    settings = AdmissionSettings(influence=2.0, refusals=2)
    coordinator = open_round(*devices, settings=settings, min_reports=1, deadline_s=10.0)
    coordinator.admission._signing.signed = True
    run_round(coordinator, dict.fromkeys(devices, (10, 1.0)))
    for _ in range(3):
        claims = dict.fromkeys(devices, (10, 1.0)) | {"b": (10, 100.0)}
        record = run_round(coordinator, claims, now=coordinator.tally.opened_at + 1).record
    assert "b" not in record.devices
    assert list(coordinator.admission.quarantine.inside) == (["b"] if len(devices) > 2 else [])


@pytest.mark.parametrize("late", ["drop", "fold"])
def test_a_late_update_has_the_open_rounds_bound(late):
    coordinator = open_round(*"abc", min_reports=2, goal=2, late=late)
    run_round(coordinator, {"a": (10, 1.0), "b": (10, 1.0)})
    tell(coordinator, "c", now=2.0, round=1, version=0, num_examples=1000, delta=UNIT)
    record = run_round(coordinator, {"a": (10, 1.0), "b": (10, 1.0)}, now=3.0).record
    assert record.lowered == ({"c": 20} if late == "fold" else {})


def test_a_rule_that_is_no_mean_has_the_same_weights():
    """A spilled rule is given the lowered weights."""
    from edgefl.strategies.combine.spilled import Spilled
    from edgefl.strategies.composed import Composed
    from edgefl.strategies.server.step import Step

    seen = []

    class Weights(Spilled):
        def rule(self, deltas, weights):
            seen.append(weights.tolist())
            return deltas[0]

    strategy = Composed("weights", combine=Weights(), server=Step(1.0))
    coordinator = make_coordinator(strategy=strategy, start={"admission": BOUNDED}, min_reports=4)
    feed(coordinator, *map(status, "abcd"), Connected())
    run_round(coordinator, FOUR | {"d": (500, 1.0)})
    assert seen[0] == [10, 10, 10, 20]


def test_a_decoded_update_is_added_as_its_payload_is():
    """Bounding influence changes no bit of an update that is within it."""
    results = []
    for settings in (AdmissionSettings(), BOUNDED):
        coordinator = open_round(*"abcd", settings=settings)
        rng = np.random.default_rng(3)
        for _ in range(2):
            for device in "abcd":
                delta = rng.standard_normal(P).astype(np.float32)
                tell(
                    coordinator, device, now=coordinator.tally.opened_at + 1, round=coordinator.round,
                    version=coordinator.version, num_examples=10, delta=delta,
                )  # fmt: skip
        results.append(coordinator.params.tobytes())
    assert results[0] == results[1]


def test_a_late_update_between_rounds_is_refused_and_blamed_when_it_is_added():
    """There is no bound when it comes, so it gets its receipt; the sum does not get it."""
    settings = AdmissionSettings(influence=2.0, refusals=1)
    coordinator = open_round(*"abc", settings=settings, min_reports=3, goal=3, late="fold", interval_s=100.0)
    coordinator.admission._signing.signed = True
    run_round(coordinator, dict.fromkeys("abc", (10, 1.0)))
    feed(coordinator, status("d"), Tick(), now=coordinator.wake_at)
    assert coordinator.phase == "open"
    kept = LateUpdate("d", 1, 0, 1, make_update(num_examples=10, delta=100 * UNIT))
    before = accumulator_of(coordinator)
    out = feed(coordinator, ReloadedLate([kept]), now=coordinator.tally.opened_at + 1)
    assert accumulator_of(coordinator) == before
    assert list(coordinator.snapshot().barred) == ["d"]
    assert any(note.kind == "late of d" for note in of(out, Note))
    record = run_round(coordinator, dict.fromkeys("abc", (10, 1.0)), now=coordinator.tally.opened_at + 2).record
    assert record.refused == {"d": {"influence": 1}} and record.influence["d"] == (10, 100.0) and record.lowered == {}


class Telling(Composed):
    """FedAvg that keeps what it was told of each update."""

    def __init__(self) -> None:
        super().__init__("telling", combine=Mean(), server=Step(1.0))
        self.told = []

    def add(self, update):
        super().add(update)
        self.told.append((update.device, update.num_examples, update.examples, update.steps, update.loss))


def test_a_strategy_is_told_steps_loss_and_the_examples_before_they_were_bounded():
    """Of updates that count at once, of those that waited for the first round's bound, and of late ones."""
    strategy = Telling()
    coordinator = open_round(*"abcd", strategy=strategy, late="fold", goal=3, min_reports=3)
    for number, device in enumerate("abc"):
        assert strategy.told == []
        tell(coordinator, device, num_examples=10, delta=UNIT, steps=3 + number, loss=0.25)
    assert strategy.told == [(d, 10, 10, 3 + n, 0.25) for n, d in enumerate("abc")]
    strategy.told.clear()
    tell(coordinator, "d", now=2.0, num_examples=200, delta=UNIT, steps=9, loss=1.5)  # late, and bounded
    tell(coordinator, "a", now=3.0, round=2, version=1, num_examples=10, delta=UNIT, steps=7, loss=2.0)
    assert strategy.told == [("d", 20, 200, 9, 1.5), ("a", 10, 10, 7, 2.0)]


def weighing(weights, *devices, **options):
    strategy = Telling()
    strategy.weights = Weights.of(weights)
    return strategy, open_round(*devices, strategy=strategy, **options)


def test_influence_is_bounded_in_the_strategys_weights():
    """Where every device counts alike, one with fifty times the examples has no more influence than others."""
    for weights, counted in (("examples", 20), ("uniform", 500), ("capped:30", 333)):
        strategy, coordinator = weighing(weights, *"abcde")
        claims = dict.fromkeys("abcd", (10, 1.0)) | {"e": (500, 1.0)}
        record = run_round(coordinator, claims).record
        assert strategy.told[-1][:3] == ("e", counted, 500), weights
        assert record.lowered == ({} if counted == 500 else {"e": counted})
        assert record.influence == claims, "records have the examples, so another choice of weights can use them"
        out = tell(coordinator, "d", round=2, version=1, num_examples=10, delta=21 * UNIT)
        assert coordinator.tally.rejected == ["d"] and receipts_of(out) == ["rejected"]


def receipts_of(out):
    return [decode(Inbox, each.payload).outcome for each in of(out, Publish) if each.topic.endswith("inbox")]


def test_a_weight_that_was_lowered_is_lowered_by_the_same_share_in_the_sum():
    strategy, coordinator = weighing("uniform", *"abcde")
    claims = dict.fromkeys("abcd", (10, 1.0)) | {"e": (500, 4.0)}  # of e, a half of the influence of 4 is left
    start = coordinator.params.copy()
    run_round(coordinator, claims)
    assert strategy.told[-1][:3] == ("e", 250, 500)
    expected = start + UNIT * (4 * 1 + 0.5 * 4) / 4.5
    np.testing.assert_allclose(coordinator.params, expected, rtol=1e-6)


@pytest.mark.parametrize("strategy", ["uniform", "feddyn"])
def test_a_device_that_claims_one_example_is_bounded_where_all_count_alike(strategy):
    """A share of one example can't be told in whole ones."""
    moved = []
    for examples in (1, 10):
        if strategy == "uniform":
            _, coordinator = weighing("uniform", *"abcde")
        else:
            made = FedDyn()
            made.defaults(TrainSettings(epochs=1, batch_size="all"))
            coordinator = open_round(*"abcde", strategy=made)
        for device in "abcd":
            tell(coordinator, device, num_examples=10, delta=UNIT, steps=1)
        tell(coordinator, "e", num_examples=examples, delta=-8 * UNIT, steps=1)  # a quarter is left
        run_out(coordinator)
        moved.append(float(coordinator.params[0] / UNIT[()]))
    assert moved[0] == pytest.approx(moved[1], rel=1e-6)


def test_a_strategy_is_told_the_loss_of_the_models_that_devices_received():
    strategy = Telling()
    strategy.add = lambda update: strategy.told.append((update.device, update.start_loss))
    coordinator = open_round("a", "b", strategy=strategy, settings=AdmissionSettings())
    held = UpdateHeader(10, 3, 0.5, 10, 100, num_eval=4, eval_loss=0.75, eval_accuracy=0.5).to_bytes()
    report(coordinator, "a", blob=held + bytes(4 * P))
    tell(coordinator, "b")
    assert strategy.told == [("a", 0.75), ("b", None)]
