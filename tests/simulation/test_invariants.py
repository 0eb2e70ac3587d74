"""A federation on a network that loses, repeats and reorders, with restarts at any moment (world.py)."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from world import AGGREGATOR, DEVICES, World

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
