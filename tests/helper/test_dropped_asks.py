"""Asks that anybody may have sent, or that come amiss, are dropped: no answer, and a line in the log."""

from __future__ import annotations

import pytest
from helped import (
    DEVICES,
    FEDERATION,
    NAME,
    THIEF,
    TOPICS,
    Desk,
    ask_of,
    blob_of,
    certificate,
    keys_of,
    parts_of,
    roster_of,
    terms_of,
)

from edgefl.helper.arriving import SLACK, most_devices
from edgefl.machine import Received
from edgefl.masking.exchange import ask_bound


@pytest.mark.parametrize(
    "blob",
    [
        lambda ask: blob_of(ask, key=THIEF, cert=certificate()),
        lambda ask: blob_of(ask, key=THIEF, cert=certificate(THIEF, root=THIEF)),
        lambda ask: blob_of(ask, cert=certificate(federation="lake")),
        lambda ask: blob_of(ask, name="south"),
        lambda ask: blob_of(ask, epoch=2, cert=certificate(epoch=1)),
        lambda ask: blob_of(ask)[:-1],
        lambda ask: blob_of(ask) + b"x",
        lambda ask: b"\2" + blob_of(ask)[1:],
        lambda ask: blob_of(ask)[:40] + b"~" + blob_of(ask)[41:],
        lambda ask: bytes(500),
    ],
)
def test_an_ask_that_no_certified_aggregator_has_signed_for_us_is_dropped(blob):
    desk, ask = Desk(), ask_of(terms_of())
    assert desk.feed(*parts_of(blob(ask), 1)) is None
    assert len(desk.log) == 2, desk.log
    assert "dropped" in desk.log[1] or "update the older side" in desk.log[1]
    assert desk.disk.state.round == 0 and not desk.disk.answers
    answer = desk.ask(ask)
    assert answer is not None and not answer.reason


def test_parts_of_another_topic_or_of_no_ask_are_dropped():
    desk, parts = Desk(), parts_of(blob_of(ask_of(terms_of())), 1)
    for topic in (TOPICS.ask("south", 0), TOPICS.ask(NAME, 1), TOPICS.answer(NAME, 0), TOPICS.round, "x"):
        assert desk.feed(Received(topic, parts[0].payload)) is None
    assert desk.feed(Received(TOPICS.ask(NAME, 0), b"")) is None
    assert len(desk.log) == 7 and FEDERATION in TOPICS.base
    assert desk.feed(*parts) is not None


def test_an_ask_longer_than_all_enrolled_devices_need_is_not_assembled():
    desk = Desk(roster=roster_of(*DEVICES[:2]))
    bound = ask_bound(most_devices(2))
    assert most_devices(2) == 4 + SLACK
    for size, kept in ((bound, 1), (bound + 1, 0)):
        parts = parts_of(bytes(size), 1, part_bytes=60_000)
        desk.feed(parts[0])
        assembler = desk.machine._arriving._assembler
        assert assembler is not None and (assembler.buffered > 0) is bool(kept)
        desk.machine._arriving.clear()
    assert "our roster has 2: copy the operator's newest roster.json here" in desk.log[-1]


def test_parts_of_one_ask_are_held_at_a_time():
    desk = Desk()
    for round in range(1, 50):
        desk.feed(*parts_of(blob_of(ask_of(terms_of(round))), round)[:-1])
        assembler = desk.machine._arriving._assembler
        assert assembler is not None and assembler.buffered < 4000


def test_an_ask_that_comes_while_another_is_worked_on_is_dropped_and_answered_when_it_comes_again():
    from edgefl.helper.events import JobDone, Open

    desk = Desk()
    first, second = ask_of(terms_of(1)), ask_of(terms_of(2))
    actions = [a for part in parts_of(blob_of(first), 1) for a in desk.machine.step(part, 0.0)]
    (job,) = [action.job for action in actions if isinstance(action, Open)]
    for other in (first, second):
        assert desk.feed(*parts_of(blob_of(other), 1)) is None
    assert "comes again" in desk.log[-1]
    assert desk.feed(JobDone(job, job.run(desk.draw))) is not None
    assert desk.feed(JobDone(job, job.run(desk.draw))) is None, "it has been answered"
    answer = desk.ask(second)
    assert answer is not None and not answer.reason


def test_an_epoch_that_ends_while_its_set_is_worked_on():
    from edgefl.helper.events import JobDone, KeysRead, Open

    desk = Desk()
    actions = [a for part in parts_of(blob_of(ask_of(terms_of())), 1) for a in desk.machine.step(part, 0.0)]
    (job,) = [action.job for action in actions if isinstance(action, Open)]
    desk.feed(KeysRead(keys_of(2)))
    assert desk.feed(JobDone(job, job.run(desk.draw))) is None and not desk.disk.answers
    desk.keys = keys_of(2)
    next_ask = ask_of(terms_of(keys=[keys_of(2)]), DEVICES[2:6])
    actions = [a for part in parts_of(blob_of(next_ask), 1) for a in desk.machine.step(part, 0.0)]
    assert desk.feed(JobDone(job, job.run(desk.draw))) is None, "nor does it pass for the answer to the next"
    (own,) = [action.job for action in actions if isinstance(action, Open)]
    assert desk.feed(JobDone(own, own.run(desk.draw))) is not None and list(desk.disk.answers) == [1]
