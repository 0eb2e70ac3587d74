"""New settings while rounds run: the open round goes on by the old ones, the next one opens by the new ones."""

from __future__ import annotations

import msgspec
from machines import feed, make_coordinator, of, open_round, report, round_in, status, update_parts

from edgefl.coordinator.events import Commit, Evaluate, Evaluated, Finished, Reconfigured
from edgefl.machine import Connected, Tick
from edgefl.settings import GateSettings, RoundSettings


def new(coordinator, gate=None, **changes) -> Reconfigured:
    """The settings in use with some changed."""
    settings: RoundSettings = msgspec.structs.replace(coordinator.config, **changes)
    return Reconfigured(settings, gate or coordinator.gate.settings)


def test_the_open_round_goes_on_by_the_settings_that_it_was_opened_with():
    coordinator = open_round("a", "b", deadline_s=10.0)
    report(coordinator, "a", now=1.0)
    assert feed(coordinator, new(coordinator, deadline_s=50.0, min_reports=1), now=2.0) == []
    shot = coordinator.snapshot()
    assert (shot.phase, shot.counted, shot.closes_at) == ("open", 1, 10.0)
    out = report(coordinator, "b", now=3.0)
    (commit,) = of(out, Commit)
    assert commit.record.devices == ["a", "b"]
    opened = round_in(out)
    assert (opened.round, opened.deadline_s) == (2, 50.0)
    feed(coordinator, status("b", "lost"), now=4.0)
    assert of(report(coordinator, "a", now=5.0, round=2, version=1), Commit), "one report is enough now"


def test_between_rounds_they_hold_at_once():
    coordinator = make_coordinator(interval_s=60.0)
    feed(coordinator, status("a"), Connected(), now=0.0)
    report(coordinator, "a", now=1.0)
    assert coordinator.wake_at == 60.0
    assert round_in(feed(coordinator, new(coordinator, interval_s=100.0), now=2.0)) is None
    assert coordinator.wake_at == 100.0, "the interval goes on from the opening of the last round"
    assert round_in(feed(coordinator, new(coordinator, interval_s=0.0), now=3.0)).round == 2


def test_more_devices_are_needed_at_once():
    coordinator = make_coordinator(interval_s=60.0)
    feed(coordinator, status("a"), Connected(), now=0.0)
    report(coordinator, "a", now=1.0)
    feed(coordinator, new(coordinator, min_reports=2, interval_s=0.0), now=2.0)
    assert coordinator.snapshot().phase == "waiting"
    assert round_in(feed(coordinator, status("b"), now=3.0)).round == 2


def test_who_can_be_asked_is_counted_again():
    coordinator = make_coordinator(interval_s=60.0, min_reports=1)
    feed(coordinator, status("a"), Connected(), now=0.0)
    report(coordinator, "a", now=1.0)
    stale = msgspec.structs.replace(coordinator.presence.statuses["a"], fresh=False, boot=2)
    coordinator.presence.update("a", stale)
    assert coordinator.presence.count == 1
    feed(coordinator, new(coordinator, only_new_data=True), now=2.0)
    assert coordinator.presence.count == 0
    assert round_in(feed(coordinator, Tick(), now=61.0)).state == "waiting"
    assert round_in(feed(coordinator, new(coordinator, only_new_data=False), now=62.0)).round == 2


def test_fewer_rounds_end_the_run():
    coordinator = make_coordinator(interval_s=60.0)
    feed(coordinator, status("a"), Connected(), now=0.0)
    report(coordinator, "a", now=1.0)
    assert of(feed(coordinator, new(coordinator, rounds=1), now=2.0), Finished)


def test_a_gate_that_is_opened_lets_the_next_rounds_model_pass():
    coordinator = open_round("a", start={"gate": GateSettings(judge="test", max_accuracy_drop=0.0)})

    def result(round: int, version: int, accuracy: float) -> str:
        """What became of the round's model, which has this accuracy, like the one before the first."""
        out, states = list(update_parts("a", round=round, version=version)), []
        while out:
            for action in coordinator.step(out.pop(0), 1.0):
                out += [Evaluated(1.0 - accuracy, accuracy)] if isinstance(action, Evaluate) else []
                states += [action.record.state] if isinstance(action, Commit) else []
        return states[0]

    assert [result(1, 0, 0.5), result(2, 1, 0.1)] == ["committed", "refused"]
    coordinator.step(new(coordinator, GateSettings()), 2.0)
    assert [result(3, 1, 0.1), result(4, 1, 0.1)] == ["refused", "committed"]
