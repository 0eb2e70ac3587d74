"""Two aggregators on one federation by mistake: one holds it, the other says so and stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import MANIFEST, TOPICS, make_coordinator, make_manifest, of, received, status, update_parts

from edgefl.coordinator.events import Commit, Evaluate, Evaluated, Fenced, SaveAttempt
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Stop, Subscribe, Tick
from edgefl.protocol.messages import Claim, decode
from edgefl.transports.memory import MemoryBroker

RUN, OTHER_RUN = MANIFEST.run, "f" * 16


def coordinator_of(attempt=5, instance=0xA, round=3, **options):
    start = {"attempt": attempt, "instance": instance, "round": round, "version": round - 1, **options}
    return make_coordinator(start=start)


def claim(attempt=5, instance=0xB, state="holding", run=RUN, connection=1) -> Received:
    return received(TOPICS.aggregator, Claim(run, attempt, f"{instance:016x}", connection, state))


def echo(attempt=5, instance=0xA, connection=1) -> Received:
    return claim(attempt, instance, "asking", connection=connection)


def claims(actions) -> list[Claim]:
    return [decode(Claim, p.payload) for p in of(actions, Publish, TOPICS.aggregator) if p.payload]


def step(machine, *events, now=0.0):
    return [action for event in events for action in machine.step(event, now)]


def holding(**options):
    coordinator = coordinator_of(**options)
    attempt, instance = options.get("attempt", 5), options.get("instance", 0xA)
    step(coordinator, Connected(), echo(attempt, instance))
    assert coordinator.fence.held
    return coordinator


# Getting it


def test_nothing_is_announced_before_our_own_question_has_come_back():
    coordinator = coordinator_of()
    out = step(coordinator, Connected(), status("a"))
    ask = of(out, Publish, TOPICS.aggregator)[0]  # after the subscription, or what is retained might come after it
    assert out.index(Subscribe((TOPICS.aggregator,))) < out.index(ask)
    assert claims(out) == [Claim(RUN, 5, f"{0xA:016x}", 1, "asking")]
    assert not any(p.retain for p in of(out, Publish)) and coordinator.phase == "waiting"
    out = step(coordinator, echo())
    assert out[0] == SaveAttempt(5)
    assert claims(out)[0].state == "holding" and of(out, Publish)[0].retain
    assert of(out, Publish, TOPICS.manifest) and of(out, Publish, TOPICS.round)
    assert step(coordinator, echo()) == []


def test_the_number_is_saved_once():
    coordinator = holding()
    step(coordinator, Disconnected(), Connected())
    out = step(coordinator, echo(connection=2))
    assert not of(out, SaveAttempt) and claims(out)


def test_a_question_of_an_earlier_connection_is_no_answer():
    coordinator = holding()
    step(coordinator, Disconnected(), Connected())
    assert step(coordinator, echo(connection=1)) == []
    assert not coordinator.fence.held


def test_an_older_claim_or_our_own_is_no_obstacle():
    coordinator = coordinator_of()
    out = step(coordinator, Connected(), claim(4), claim(5, 0xA, connection=7))
    assert not of(out, Fenced)
    assert claims(step(coordinator, echo()))[0].attempt == 5


def test_a_question_that_does_not_come_back_is_asked_again():
    coordinator = coordinator_of()
    step(coordinator, Connected(), now=1.0)
    assert coordinator.wake_at == 11.0
    assert step(coordinator, Tick(), now=10.9) == []
    out = step(coordinator, Tick(), now=11.0)
    assert "let this client write and read there" in of(out, Note)[0].text and claims(out)[0].connection == 2
    assert coordinator.wake_at == 21.0
    step(coordinator, echo(connection=1), now=12.0)
    assert not coordinator.fence.held
    step(coordinator, echo(connection=2), now=12.0)
    assert coordinator.fence.held
    step(coordinator, Disconnected())
    assert coordinator.wake_at is None


# Losing it


@pytest.mark.parametrize("attempt", [5, 6])
@pytest.mark.parametrize("run", [RUN, OTHER_RUN])
def test_i05_who_comes_second_stops(attempt, run):
    coordinator = coordinator_of()
    out = step(coordinator, Connected(), status("a"), claim(attempt, run=run))
    (fenced,) = of(out, Fenced)
    assert "--take-over" in fenced.reason and f"attempt {attempt}" in fenced.reason
    assert step(coordinator, echo(), Tick(), Disconnected(), Connected(), now=99.0) == []
    assert coordinator.wake_at is None


def test_i05_of_two_that_start_at_once_one_stays():
    first, second = coordinator_of(instance=0xA), coordinator_of(instance=0xB)
    step(first, Connected())
    step(second, Connected())
    for message in (echo(instance=0xA), echo(instance=0xB), claim(instance=0xA), claim(instance=0xB)):
        step(first, message)
        step(second, message)
    assert (first.fence.held, second.fence.lost) == (True, True)


def test_a_question_of_a_process_that_has_died_stops_nobody():
    """It lies in the broker's queue for us; had it won, its number would not be ours."""
    coordinator = coordinator_of()
    assert step(coordinator, Connected(), claim(5, 0xD, "asking"), claim(9, 0xD, "asking"), echo())
    assert coordinator.fence.held
    assert step(coordinator, claim(9, 0xD, "asking")) == []
    assert coordinator.fence.held


def test_i05_an_open_round_of_an_older_aggregator_is_never_committed():
    coordinator = holding(round=1)
    step(coordinator, status("a"), status("b"))
    parts = update_parts("a")
    step(coordinator, parts[0])
    assert of(step(coordinator, claim(6)), Fenced)
    assert step(coordinator, parts[1], Tick(), Evaluated(), now=999.0) == []


def test_i05_an_older_or_equal_one_that_asks_is_told_that_it_is_ours():
    coordinator = holding()
    for message in (claim(4), claim(4, state="asking"), claim(5, state="asking"), claim(5, 0xB)):
        (told,) = step(coordinator, message)
        assert told.retain and claims([told])[0].state == "holding"


def test_i05_of_two_that_both_believe_it_the_one_with_the_lower_number_stays():
    first, second = holding(instance=0xA), holding(instance=0xB)
    assert claims(step(first, claim(5, 0xB)))
    assert of(step(second, claim(5, 0xA)), Fenced)


def test_i07_of_two_that_throw_each_other_off_the_broker_one_stays():
    """Found by simulation: each came back to the other's claim, and both stopped."""
    first, second = holding(instance=0xA), holding(instance=0xB)
    out = step(first, Disconnected(), Connected(), claim(5, 0xB))
    assert not of(out, Fenced)
    step(first, echo(instance=0xA, connection=2))
    assert first.fence.held
    assert of(step(second, Disconnected(), Connected(), claim(5, 0xA)), Fenced)


def test_i05_a_claim_that_was_lost_on_its_way_is_seen_at_the_next_round():
    """Found by simulation: a full queue dropped it, and both went on."""
    out = step(holding(round=1), status("a"))
    assert of(out, Publish, TOPICS.round)
    assert Subscribe((TOPICS.aggregator,)) in out


# Off line, amnesia, the end


def test_a_round_whose_deadline_passes_off_line_is_closed_when_the_federation_is_ours_again():
    coordinator = holding(round=1)
    step(coordinator, status("a"), status("b"))
    step(coordinator, *update_parts("a"), Disconnected(), now=1.0)
    assert coordinator.wake_at is None
    assert step(coordinator, Tick(), now=61.0) == []
    step(coordinator, Connected(), now=70.0)
    assert step(coordinator, status("b", "lost"), *update_parts("b"), now=70.0) == []
    assert of(step(coordinator, echo(connection=2), now=70.0), Evaluate)


def test_a_round_whose_deadline_passes_off_line_is_not_closed_if_it_is_another_ones_by_then():
    coordinator = holding(round=1)
    step(coordinator, status("a"), *update_parts("a"), Disconnected(), now=1.0)
    assert of(step(coordinator, Connected(), claim(6), now=70.0), Fenced)


def test_i10_a_claim_that_is_gone_is_put_back():
    (claimed,) = claims(step(holding(), Received(TOPICS.aggregator, b"")))
    assert claimed.state == "holding"
    assert step(coordinator_of(), Received(TOPICS.aggregator, b"")) == []


def test_a_clean_end_releases_it_to_another_run_but_not_to_an_older_copy():
    (released,) = claims(step(holding(), Stop()))
    assert (released.state, released.attempt) == ("released", 5)
    last = received(TOPICS.aggregator, released)
    copy = coordinator_of(attempt=5, instance=0xB)
    assert of(step(copy, Connected(), last), Fenced)
    fresh = make_coordinator(manifest=make_manifest(run=OTHER_RUN), start={"attempt": 1, "instance": 0xB})
    out = step(fresh, Connected(), last)
    assert claims(out)[-1].attempt == 6
    out = step(fresh, claim(6, 0xB, "asking", OTHER_RUN, connection=2))
    assert out[0] == SaveAttempt(6) and fresh.fence.held


def test_taking_over_is_said_with_a_number_above_the_other_ones():
    coordinator = coordinator_of(attempt=2, take_over=True)
    out = step(coordinator, Connected(), claim(8), status("a"))
    assert not of(out, Fenced)
    out = step(coordinator, echo(attempt=9, connection=2))
    assert out[0] == SaveAttempt(9)
    assert b'"attempt":9' in of(out, Publish, TOPICS.round)[0].payload
    assert of(step(coordinator, claim(10)), Fenced)  # not once it is ours


def test_rubbish_on_the_topic_is_dropped_and_counted():
    coordinator = holding()
    (note,) = step(coordinator, Received(TOPICS.aggregator, b"{}"))
    assert (coordinator.dropped["?"], note.level) == (1, "warning")
    assert coordinator.fence.held


# Any two, in any order


@given(
    attempts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    moves=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["deliver", "deliver", "deliver", "drop"])), max_size=60
    ),
)
def test_i05_two_aggregators_on_one_broker_never_announce_at_once_for_long(attempts, moves):
    queues: list[list[Received]] = [[], []]
    broker = MemoryBroker(lambda client, topic, payload: queues[int(client)].append(Received(topic, payload)))
    machines = [coordinator_of(attempt, instance) for attempt, instance in zip(attempts, (0xA, 0xB), strict=True)]

    def drive(i, event):
        for action in machines[i].step(event, 0.0):
            match action:
                case Publish():
                    broker.publish(action.topic, action.payload, action.retain)
                case Subscribe():
                    broker.subscribe(str(i), action.topics)
                case Commit():
                    raise AssertionError("there is no device")

    def reconnect(i):
        broker.cut(str(i))
        queues[i].clear()
        drive(i, Disconnected())
        drive(i, Connected())

    for i, what in moves:
        if what == "drop":
            reconnect(i)
        elif queues[i]:
            drive(i, queues[i].pop(0))
    for i in (0, 1):
        reconnect(i)
    while queues[0] or queues[1]:
        for i in (0, 1):
            if queues[i]:
                drive(i, queues[i].pop(0))
    assert [m.fence.held for m in machines].count(True) == 1
    assert [m.fence.lost for m in machines].count(True) == 1
    held = next(m for m in machines if m.fence.held)
    assert held.fence.attempt == max(attempts)
