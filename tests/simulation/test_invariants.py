"""A federation on a network that loses, repeats and reorders, with restarts at any moment (world.py)."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from machines import TOPICS
from world import AGGREGATOR, DEADLINE_S, DEVICES, World

from edgefl.device.events import Pause


class Federation(RuleBasedStateMachine):
    config: ClassVar[dict] = {}

    def __init__(self) -> None:
        super().__init__()
        self.world = World(**self.config)

    any_device = st.sampled_from(DEVICES)
    any_number = st.integers(0, 2**16)

    def pick(self, number: int) -> int:
        return number % len(self.world.pending)

    @precondition(lambda self: self.world.pending)
    @rule(count=st.integers(1, 30))
    def deliver_in_order(self, count):
        for _ in range(min(count, len(self.world.pending))):
            if self.world.pending:
                self.world.step(*self.world.pending.pop(0))

    @precondition(lambda self: self.world.pending)
    @rule(number=any_number)
    def deliver_out_of_order(self, number):
        self.world.step(*self.world.pending.pop(self.pick(number)))

    @precondition(lambda self: self.world.pending)
    @rule(number=any_number)
    def deliver_and_keep(self, number):
        self.world.step(*self.world.pending[self.pick(number)])

    @precondition(lambda self: self.world.pending)
    @rule(number=any_number)
    def lose(self, number):
        self.world.pending.pop(self.pick(number))

    @precondition(lambda self: self.world.jobs)
    @rule(number=any_number, reason=st.sampled_from(["", "", "", "no data"]))
    def finish_training(self, number, reason):
        jobs = list(self.world.jobs)
        self.world.finish_training(jobs[number % len(jobs)], reason)

    @rule()
    def advance(self):
        self.world.advance()

    @rule(device=any_device)
    def kill_device(self, device):
        self.world.start_device(device)

    @rule(client=st.sampled_from([*DEVICES, AGGREGATOR]))
    def reconnect(self, client):
        self.world.reconnect(client)

    @rule(device=any_device, reason=st.sampled_from(["on battery", ""]))
    def pause(self, device, reason):
        self.world.step(device, Pause(reason))

    @rule()
    def kill_aggregator(self):
        self.world.start_aggregator()

    @rule()
    def kill_aggregator_at_its_next_commit(self):
        self.world.crash_at_commit = True

    def teardown(self):
        self.world.heal()


class Folding(Federation):
    config: ClassVar[dict] = {"late": "fold", "late_rounds": 2, "goal": 2}


class Asynchronous(Federation):
    config: ClassVar[dict] = {"mode": "async", "late_rounds": 3, "goal": 2}


for machine, examples in ((Federation, 100), (Folding, 50), (Asynchronous, 50)):
    machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=50, deadline=None)
TestI07FederationSurvivesAnything = Federation.TestCase
TestI07FoldingSurvivesAnything = Folding.TestCase
TestI07AsynchronousSurvivesAnything = Asynchronous.TestCase


def test_i07_without_faults_a_round_takes_no_deadline():
    world = World()
    for version in range(1, 4):
        world.heal()
        assert len(world.models) == version + 1
    assert world.now == 0.0
    assert [r.devices for r in world.records[1:]] == [DEVICES] * 2  # the first opens as soon as two are there


def deliver(world: World, rounds: int | None = None, lost: str = "") -> None:
    """Deliver in order all that is on its way but for messages on the topic `lost`, until so many rounds are over."""
    while world.pending and len(world.records) != rounds:
        client, event = world.pending.pop(0)
        if not lost or getattr(event, "topic", "") != lost:
            world.step(client, event)


def in_round(number: int) -> World:
    """All devices train for this round; rounds before it took no time, and nothing is on its way."""
    world = World()
    deliver(world)
    while len(world.records) < number - 1:
        for device in list(world.jobs):
            world.finish_training(device)
        deliver(world)
    return world


def test_i11_a_device_whose_receipt_was_lost_is_told_by_the_next_round_that_names_it():
    world = in_round(2)
    world.now += DEADLINE_S
    world.advance()  # the round goes on: it needs two of the three
    deliver(world)
    world.now += 20
    world.finish_training("a")
    world.finish_training("b")
    deliver(world, rounds=2, lost=TOPICS.inbox("b"))
    deliver(world, lost=TOPICS.inbox("b"))
    assert world.machines["b"].round.unearned == DEVICES  # two took too long, and one has missed
    saved = world.disks["b"].outbox
    assert (saved.round, saved.counted) == (2, 0)
    while "b" not in world.jobs:  # it asks again, and takes part in the open round
        world.advance()
        deliver(world)
    assert ("b", 2) in world.told & set(world.committed())
    assert world.disks["b"].slots["residual"].round == 2
    world.heal()


def test_i07_a_device_that_gave_up_a_longer_round_is_back_at_its_deadline():
    world = in_round(1)
    world.now += DEADLINE_S - 5
    for device in DEVICES:
        world.finish_training(device)
    deliver(world)
    announced_s = world.machines["a"].round.deadline_s
    assert announced_s == 3 * (DEADLINE_S - 5)
    world.finish_training("a", "no data")
    world.finish_training("b", "no data")
    began_at = world.now
    world.heal()  # asserts that a round commits within two such deadlines
    assert announced_s <= world.now - began_at < announced_s + DEADLINE_S
    assert [record.state for record in world.records] == ["committed", "abandoned", "committed"]
