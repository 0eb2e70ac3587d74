"""The coordinator's side of an exchange, and a helper's: what one writes, the other reads."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from helped import (
    DEVICES,
    HASH,
    NAME,
    SIGNER,
    TOPICS,
    Desk,
    certificate,
    entry_of,
    keys_of,
    masked,
    party_of,
    q_of,
    terms_of,
)

from edgefl.coordinator.masked.answered import Answered
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.coordinator.masked.unmasking import NotOpened, Unmasking
from edgefl.history_record import RoundRecord
from edgefl.machine import Publish, Received
from edgefl.masking import ring
from edgefl.masking.exchange import seal_ask
from edgefl.protocol.terms import Party


class Signing:
    """Stands for the aggregator's keys."""

    def seal_ask(self, ask, helper):
        return seal_ask(ask, helper, 1, SIGNER, certificate())


def record_of(round: int, epoch: int = 1, epsilon: float = 0.0) -> RoundRecord:
    record = RoundRecord(round, "committed", round, 1, list(DEVICES[:3]), 10, 0.5, 100, 100, 1.0)
    return msgspec.structs.replace(record, helped={NAME: epoch}, epsilon=epsilon)


def unmasking_of(round: int, keys=None, **changes) -> Unmasking:
    terms = terms_of(round, [keys or keys_of()], **changes)
    total = np.zeros(terms.length, np.uint32)
    for device in DEVICES[:3]:
        ring.add(total, masked(device, terms).packed, terms.bits)
    entries = {device: entry_of(device, terms) for device in DEVICES[:3]}
    return Unmasking(SavedAsk(record_of(round), terms, entries, [total]), TOPICS, hash=HASH, patience_s=60.0)


def exchange(unmasking: Unmasking, desk: Desk, answered: Answered):
    """Ask, and hear what the helper says; the opened sum, (L,) int64."""
    unmasking.begin(0.0)
    asks = unmasking.ask(Signing(), unmasking.saved.ask(1), answered, 500, 0.0)
    replies = [a for one in asks for a in desk.machine.step(Received(one.topic, one.payload), 0.0)]
    sent = [a for a in desk._carry_out(replies) if isinstance(a, Publish)]
    for one in sent:
        where = TOPICS.answer_part(one.topic)
        assert where is not None
        unmasking.hear(where, one.payload)
    assert unmasking.silent == []
    return unmasking.opened(0)


def test_what_a_helper_answers_opens_the_coordinators_sum():
    for round in (1, 2):
        unmasking, desk = unmasking_of(round), Desk()
        expected = sum(q_of(device, unmasking.terms).astype(np.int64) for device in DEVICES[:3])
        np.testing.assert_array_equal(exchange(unmasking, desk, Answered()), expected)


def test_a_restored_helper_learns_from_the_records_that_it_is_and_a_new_epoch_ends_it():
    """The aggregator tells of the rounds that this helper has answered with these keys, and of no other's."""
    desk, answered = Desk(), Answered()
    exchange(unmasking_of(1), desk, answered)
    answered.learn(record_of(1))
    backup = desk.disk.copy()
    exchange(unmasking_of(2), desk, answered)
    answered.learn(record_of(2))
    desk.disk = backup
    desk.start()
    with pytest.raises(NotOpened, match="restored"):
        exchange(unmasking_of(3), desk, answered)
    desk.renew(2)
    exchange(unmasking_of(3, keys_of(2)), desk, answered)


def test_a_new_helper_of_an_old_federation_is_not_taken_for_a_restored_one():
    answered = Answered()
    answered.learn(msgspec.structs.replace(record_of(40, epsilon=2.0), helped={"south": 1}))
    exchange(unmasking_of(41), Desk(), answered)


def test_what_records_tell_is_by_helper_and_epoch():
    answered = Answered()
    north, south = (msgspec.convert(party_of(keys_of(name=name)), Party) for name in (NAME, "south"))
    assert answered.of(north) == (0, 0.0)
    for round in range(1, 6):
        answered.learn(record_of(round, epsilon=round / 10))
    assert answered.of(north) == (5, 0.5) and answered.of(south) == (0, 0.0)
    assert answered.of(msgspec.structs.replace(north, epoch=2)) == (0, 0.0)
    answered.learn(msgspec.structs.replace(record_of(6), helped={}))  # abandoned, or not masked
    assert answered.of(north) == (5, 0.5)
    answered.learn(record_of(7, epoch=2, epsilon=0.7))
    assert answered.of(north) == (0, 0.0) and answered.of(msgspec.structs.replace(north, epoch=2)) == (7, 0.7)
