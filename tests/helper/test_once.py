"""A second set of one round is never opened, whatever is killed when, and the first one's answer never changes."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from helped import DEVICES, Desk, Disk, Killed, ask_of, keys_of, terms_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

NOISE = {"kind": "independent", "sigma": 30.0}
REFUSAL_BYTES = 1000  # an opened answer of LONG terms is longer
LONG = {
    "params": 3000, "coordinates": 3000, "norm2": 20_000, "noise": NOISE, "bits": 16, "least": 2,
}  # fmt: skip
SETS = (DEVICES[:2], DEVICES[:3], DEVICES[1:4])


def opened(desk: Desk) -> dict[int, set[bytes]]:
    """By round, what tells the opened answers from each other of which at least one part has left."""
    out = defaultdict(set)
    for part in desk.left:
        if part.total > REFUSAL_BYTES:
            out[part.round].add(part.blob)
    return out


def never_twice(desk: Desk) -> None:
    assert all(len(blobs) == 1 for blobs in opened(desk).values()), "two sets, or one with two noises"


def die(desk: Desk, action: int, ask) -> bool:
    """Ask, and die before the so many-th action; whether there were so many. A new process then begins."""
    desk.die_at = action
    try:
        desk.ask(ask)
        died = False
    except Killed:
        died = True
    desk.die_at = None
    desk.start()
    return died


@pytest.fixture(scope="module")
def asks():
    return [ask_of(terms_of(1, **LONG), devices) for devices in SETS]


def test_a_second_set_is_refused_and_told_so(asks):
    desk = Desk()
    first, second = desk.ask(asks[0]), desk.ask(asks[1])
    assert first is not None and second is not None
    assert not first.reason and second.reason.startswith("second: ") and second.set_digest == asks[1].set_digest
    assert any("round 1 refused: second" in line for line in desk.log)


def test_other_terms_of_the_same_round_are_a_second_set(asks):
    desk = Desk()
    desk.ask(asks[0])
    other = ask_of(terms_of(1, **{**LONG, "seed": 6}), SETS[0])
    answer = desk.ask(other)
    assert answer is not None and answer.reason.startswith("second: ")


def test_another_encoding_of_the_same_devices_is_a_second_set(asks):
    import msgspec
    from helped import entry_of

    terms = terms_of(1, **LONG)
    desk = Desk()
    desk.ask(asks[0])
    again = msgspec.structs.replace(asks[0], entries=tuple(entry_of(device, terms, salt="2") for device in SETS[0]))
    answer = desk.ask(again)
    assert answer is not None and answer.reason.startswith("second: ")


@pytest.mark.parametrize("packet", [None, 3000])
def test_i34_death_at_any_two_actions_opens_nothing_twice(asks, packet):
    """All pairs of deaths, before each action: the first set, then another one, then the first again."""
    seen = set()
    for first, second in itertools.product(range(1, 12), repeat=2):
        desk = Desk()
        desk.max_packet = packet
        desk.start()
        died = die(desk, first, asks[0]), die(desk, second, asks[1])
        before = opened(desk)
        answers = [desk.ask(ask) for ask in (asks[0], asks[1], asks[0])]
        never_twice(desk)
        assert all(answer is not None for answer in answers), "it always answers in the end"
        sound = [not answer.reason for answer in answers]
        assert sound in ([True, False, True], [False, True, False]), "exactly one set is opened"
        if before:
            assert opened(desk) == before, "what had left, in whole or in part, is what comes again"
        seen.add((*died, *sound))
    assert {(True, True, True, False, True), (True, True, False, True, False), (True, False, True, False, True)} <= seen


def test_i34_a_write_that_failed_opens_nothing(asks):
    """The host dies of a StoreError: the set that was asked for then is as if it had never been asked for."""

    class Full(Disk):
        def save(self, state, answer=None):
            if answer is not None:
                raise Killed
            super().save(state, answer)

    desk = Desk(Full())
    with pytest.raises(Killed):
        desk.ask(asks[0])
    assert not desk.left
    desk.disk = desk.disk.copy()
    desk.start()
    answer = desk.ask(asks[1])
    assert answer is not None and not answer.reason
    never_twice(desk)


class Rounds(RuleBasedStateMachine):
    """Asks of any round and set, deaths, new epochs of keys, and lost connections, in any order."""

    asks = {  # noqa: RUF012
        (round, epoch): [ask_of(terms_of(round, [keys_of(epoch)], **LONG), devices) for devices in SETS]
        for round in range(1, 9)
        for epoch in (1, 2, 3)
    }

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.epoch = 1

    @rule(round=st.integers(1, 8), place=st.integers(0, 2), behind=st.booleans())
    def ask(self, round: int, place: int, behind: bool) -> None:
        epoch = max(1, self.epoch - behind)
        newest = self.desk.disk.state.round
        answer = self.desk.ask(self.asks[round, epoch][place])
        assert answer is not None
        if not answer.reason:
            assert epoch == self.epoch and round >= newest - 8
        if round > newest and epoch == self.epoch:
            assert not answer.reason

    @rule(round=st.integers(1, 8), place=st.integers(0, 2), action=st.integers(1, 9))
    def die(self, round: int, place: int, action: int) -> None:
        die(self.desk, action, self.asks[round, self.epoch][place])

    @rule()
    def epoch_ends(self) -> None:
        if self.epoch < 3:
            self.epoch += 1
            self.desk.renew(self.epoch)

    @rule()
    def restart(self) -> None:
        self.desk.start()

    @invariant()
    def nothing_is_opened_twice(self) -> None:
        never_twice(self.desk)

    @invariant()
    def little_is_kept(self) -> None:
        assert len(self.desk.disk.answers) <= 4 and len(self.desk.disk.state.to_bytes()) < 2000


Rounds.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRounds = Rounds.TestCase
