"""The gate: a model that loses too much is refused, and then nothing has changed; and the operator's way back."""

from __future__ import annotations

import random

import numpy as np
import pytest
from machines import (
    MANIFEST,
    PARAMS,
    TOPICS,
    P,
    commit_of,
    feed,
    make_coordinator,
    make_update,
    of,
    open_round,
    received,
    report,
    round_in,
    status,
    update_parts,
    word_to,
)  # fmt: skip

from edgefl import strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import (
    Answered,
    Commit,
    Evaluate,
    Evaluated,
    LateUpdate,
    ReloadedLate,
    ReloadLate,
    Rollback,
)
from edgefl.coordinator.model.gate import verdict
from edgefl.coordinator.updates.receipts import REFUSED
from edgefl.machine import Connected, Disconnected, Publish, Tick
from edgefl.settings import GateSettings, RoundSettings

GATE = GateSettings(judge="test", max_accuracy_drop=0.02, max_loss_rise=0.1)


def gated(*devices, scores=(), gate=GATE, strategy="fedavg", start=None, now=0.0, **config):
    """A coordinator in round 1, and `step`, which answers each Evaluate with the next of `scores`."""
    coordinator = RoundCoordinator(
        MANIFEST, RoundSettings(**{"deadline_s": 60.0, "min_reports": len(devices)} | config),
        strategies.get(strategy), PARAMS, rng=random.Random(0), gate=gate, **(start or {}),
    )  # fmt: skip
    scores, asked = list(scores), []

    def step(*events, now=1.0):
        out = []
        for event in events:
            for action in coordinator.step(event, now):
                if isinstance(action, Publish) and action.topic == TOPICS.aggregator and not action.retain:
                    out += step(received(action.topic, action.payload), now=now)
                if isinstance(action, Evaluate):
                    asked.append(action.params)
                    out += step(scores.pop(0), now=now)
                out.append(action)
        return out

    step(*map(status, devices), Connected(), now=now)
    return coordinator, step, asked


def acc(accuracy, loss=0.5):
    return Evaluated(loss, accuracy)


def test_a_model_that_loses_too_much_is_refused_and_nothing_changes():
    coordinator, step, asked = gated("a", scores=[acc(0.90), acc(0.87)], strategy="fedavgm")
    out = step(*update_parts("a", make_update(1.0)))
    commit = commit_of(out)
    assert (commit.record.state, commit.record.version, commit.record.accuracy) == ("refused", 0, 0.87)
    assert commit.record.why == "its accuracy is 0.87, that of the model before it 0.9"
    assert commit.params is None and commit.state == {}
    assert coordinator.params.tobytes() == PARAMS.tobytes() and coordinator.strategy.state() == {}
    assert [params.tobytes() == PARAMS.tobytes() for params in asked] == [True, False]
    announced = round_in(out)
    assert (announced.round, announced.version) == (2, 0)


def test_the_bound_is_what_a_model_may_lose():
    _, step, _ = gated("a", scores=[acc(0.5), acc(0.4801)])
    assert commit_of(step(*update_parts("a"))).record.state == "committed"


def test_the_newest_model_is_evaluated_once_a_process():
    coordinator, step, asked = gated("a", scores=[acc(0.5), acc(0.6), acc(0.59), acc(0.55)])
    for round, version in ((1, 0), (2, 1), (3, 2)):
        step(*update_parts("a", round=round, version=version))
    assert len(asked) == 4 and coordinator.version == 2, "0.55 is more than 0.02 below 0.59"


def test_without_an_accuracy_the_loss_decides():
    settings = GATE
    assert verdict(settings, Evaluated(2.0), Evaluated(2.19)) == ""
    assert verdict(settings, Evaluated(2.0), Evaluated(2.21)) == "its loss is 2.21, that of the model before it 2"
    assert verdict(settings, Evaluated(-2.0), Evaluated(-1.9)) == ""
    assert verdict(settings, Evaluated(-2.0), Evaluated(-1.7)) != ""
    assert verdict(settings, Evaluated(2.0), Evaluated(None)) == "its loss on the test set is not finite"
    assert verdict(settings, Evaluated(None), Evaluated(None)) == ""


def test_a_gate_that_is_off_evaluates_once_and_refuses_nothing():
    _, step, asked = gated("a", scores=[acc(0.0)], gate=GateSettings())
    assert commit_of(step(*update_parts("a"))).record.state == "committed" and len(asked) == 1


def test_the_state_of_the_strategy_goes_on_from_the_last_commit():
    scores = [acc(0.9), acc(0.9), acc(0.1), acc(0.9)]
    _, step, _ = gated("a", scores=scores, strategy="fedavgm")
    first = commit_of(step(*update_parts("a", make_update(1.0))))
    refused = commit_of(step(*update_parts("a", make_update(8.0), round=2, version=1)))
    second = commit_of(step(*update_parts("a", make_update(0.5), round=3, version=1)))
    assert [c.record.state for c in (first, refused, second)] == ["committed", "refused", "committed"]
    assert second.state["server.velocity"].tolist() == [np.float32(0.9) + np.float32(0.5)] * P


def test_a_late_update_in_a_refused_model_is_spent():
    """Else it would go into the next model too, and spoil it, and the one after that."""
    scores = [acc(0.9), acc(0.9), acc(0.1), acc(0.9)]
    coordinator, step, _ = gated("a", "b", scores=scores, late="fold", late_rounds=3, goal=1, min_reports=1)
    step(*update_parts("a"))
    step(*update_parts("b", make_update(9.0)))  # of round 1, into round 2
    refused = commit_of(step(*update_parts("a", round=2, version=1)))
    assert (refused.record.state, refused.record.folded) == ("refused", [("b", 1)])
    assert list(refused.drop) == [("b", 1)]
    out = step(*update_parts("b", make_update(9.0)))
    assert word_to(out, "b").outcome == "counted" and coordinator.tally.folded == {}


def test_a_device_that_sends_an_update_of_a_refused_model_again_is_told_so():
    coordinator, step, _ = gated("a", scores=[acc(0.9), acc(0.1)], late="fold")
    step(*update_parts("a"))
    receipt = word_to(step(*update_parts("a")), "a")
    assert (receipt.outcome, receipt.reason, receipt.folded) == ("rejected", REFUSED, 2)
    assert coordinator.tally.num_counted == 0 and not coordinator.dropped


def test_a_restart_knows_what_was_refused():
    _, step, _ = gated("a", scores=[acc(0.9), acc(0.1)], late="fold")
    record = commit_of(step(*update_parts("a"))).record
    start = {"round": 2, "attempt": 2, "recent": [record]}
    _, again, _ = gated("a", scores=[acc(0.9), acc(0.9)], late="fold", start=start)
    assert word_to(again(*update_parts("a")), "a").reason == REFUSED


# Roll-back

OLD = np.full(P, 0.25, np.float32)


def test_an_operator_goes_back_and_the_open_round_ends_with_that():
    _, step, _ = gated("a", "b", scores=[acc(0.9), acc(0.8)])
    step(*update_parts("a"))
    out = step(Rollback("order 1", 7, OLD))
    commit = commit_of(out)
    assert (commit.record.state, commit.record.version, commit.record.restored) == ("rollback", 1, 7)
    assert commit.params.tobytes() == OLD.tobytes() and commit.record.devices == []
    assert of(out, Answered) == [Answered("order 1", True, "version 1 has the model of version 7")]
    kinds = [type(action) for action in out]
    assert kinds.index(Commit) < kinds.index(Answered)
    announced = round_in(out)
    assert (announced.round, announced.version) == (2, 1)


def test_what_the_open_round_had_counts_nowhere_and_no_device_is_blamed():
    coordinator, step, _ = gated("a", "b", scores=[acc(0.9)])
    step(*update_parts("a"))
    step(Rollback("order 1", 7, OLD))
    assert coordinator.standing.settled("a", 1) is False
    assert coordinator.tally.opening.skipped == {} and coordinator.tally.num_counted == 0


def test_a_roll_back_is_not_judged_and_is_what_the_next_model_is_compared_with():
    _, step, asked = gated("a", scores=[acc(0.2), acc(0.19)])
    step(Rollback("order 1", 7, OLD))
    commit = commit_of(step(*update_parts("a", round=2, version=1)))
    assert commit.record.state == "committed" and len(asked) == 2


def test_the_strategys_state_goes_back_too():
    velocity = {"server.velocity": np.full(P, 2.0, np.float32)}
    _, step, _ = gated("a", scores=[acc(0.9)], strategy="fedavgm")
    commit = commit_of(step(Rollback("order 1", 7, OLD, velocity)))
    assert commit.state["server.velocity"].tolist() == [2.0] * P


def test_an_order_is_carried_out_twice_without_harm():
    _, step, _ = gated("a", scores=[acc(0.9)])
    step(Rollback("order 1", 7, OLD))
    out = step(Rollback("order 1", 7, OLD))
    (answer,) = of(out, Answered)
    assert answer.done and "already" in answer.text and not of(out, Commit)


def test_an_order_waits_until_the_federation_is_ours():
    _, step, _ = gated("a", scores=[acc(0.9)])
    step(Disconnected())
    assert step(Rollback("order 1", 7, OLD)) == []
    out = step(Connected())
    assert commit_of(out).record.state == "rollback"


def test_an_order_is_carried_out_before_an_aggregator_that_is_done_ends():
    coordinator = RoundCoordinator(
        MANIFEST, RoundSettings(rounds=3), strategies.get("fedavg"), PARAMS, rng=random.Random(0), round=4, version=3,
        attempt=2,
    )  # fmt: skip
    out = feed(coordinator, Rollback("order 1", 1, OLD), Connected())
    assert commit_of(out).record.restored == 1 and of(out, Answered)
    assert coordinator.phase == "done"


@pytest.mark.parametrize("late", ["drop", "fold"])
def test_rounds_go_on_after_a_roll_back(late):
    _, step, _ = gated("a", scores=[acc(0.9)] * 3, late=late)
    step(Rollback("order 1", 7, OLD))
    commit = commit_of(step(*update_parts("a", make_update(0.5), round=2, version=1)))
    assert commit.record.version == 2 and commit.params.tolist() == [0.75] * P


def test_a_refused_round_is_refused_in_an_asynchronous_federation_too():
    _, step, _ = gated("a", "b", scores=[acc(0.9), acc(0.1), acc(0.95)], mode="async", goal=1, min_reports=1)
    assert commit_of(step(*update_parts("a"))).record.state == "refused"
    commit = commit_of(step(*update_parts("b")))  # its update is of round 1, from the model that is still the newest
    assert (commit.record.state, commit.record.folded) == ("committed", [("b", 1)])


def test_a_refused_model_reaches_no_target():
    coordinator = RoundCoordinator(
        MANIFEST, RoundSettings(min_reports=1, target_accuracy=0.8), strategies.get("fedavg"), PARAMS,
        rng=random.Random(0), gate=GateSettings(judge="canaries", quorum=1, canary_deadline_s=10.0),
    )  # fmt: skip
    feed(coordinator, status("a"), Connected())
    feed(coordinator, *update_parts("a"), now=1.0, accuracy=0.9)
    commit = commit_of(feed(coordinator, Tick(), now=20.0))
    assert (commit.record.state, commit.record.accuracy) == ("refused", 0.9) and coordinator.phase != "done"


def test_an_aggregator_that_starts_with_an_order_folds_late_updates_in_once():
    """Its first step asks for them, and so does the round that opens once the order is carried out."""
    late = LateUpdate("b", 1, 0, 1, make_update(0.5))
    records = [commit_of(report(open_round("a", "b", min_reports=1, goal=1, late="fold"), "a")).record]
    start = {"round": 2, "version": 1, "attempt": 2, "recent": records}
    coordinator = make_coordinator(late="fold", late_rounds=3, min_reports=2, start=start)
    out = feed(coordinator, status("a"), status("b"), Rollback("order 1", 0, OLD), Connected())
    assert len(of(out, ReloadLate)) == 2 and coordinator.phase == "open"
    for _ in of(out, ReloadLate):
        feed(coordinator, ReloadedLate([late]))
    assert list(coordinator.tally.folded) == [("b", 1)] and coordinator.tally.spoilt == []


def test_an_update_of_a_round_that_a_dead_process_had_opened_counts_after_a_roll_back():
    """Found by simulation, seeds 50875 and 80340: its device repeated it for as long as late updates are accepted."""
    start = {"round": 3, "version": 2, "attempt": 2}
    coordinator = make_coordinator(start=start, late="fold", min_reports=2)
    assert commit_of(feed(coordinator, Rollback("order 1", 1, OLD), Connected())).record.round == 3
    feed(coordinator, status("a"), status("b"), now=1.0)
    assert coordinator.round == 4 and coordinator.phase == "open"
    out = feed(coordinator, *update_parts("a", round=3, version=2), now=2.0)
    assert (word_to(out, "a").outcome, word_to(out, "a").folded) == ("counted", 4)
