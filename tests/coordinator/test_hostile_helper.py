"""A helper that is hostile: it can keep its own sums back, and neither break the aggregator nor end the federation."""

from __future__ import annotations

import msgspec
import pytest
from machines import commit_of, feed
from masked_rounds import DEVICES, answer_of, asked, helper_keys, make_helper, open_masked, sent

from edgefl.errors import ProtocolError
from edgefl.masking.exchange import read_answer
from edgefl.privacy.ledger import Ledger
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Splitter


def signed_answer(change):
    """A coordinator that waits for its helper, and that one's answer, changed before it is signed."""
    coordinator, terms = open_masked(*DEVICES[:5])
    out = sent(coordinator, terms)
    (good,) = answer_of(make_helper(), asked(out))
    keys = helper_keys()
    found = read_answer(bytes(Envelope.from_bytes(good.payload).data), "north", keys.signing.public, terms)
    blob = change(found).to_bytes("north", keys.signing)
    splitter = Splitter(
        blob, 60_000, kind=Kind.ANSWER, codec=0, federation=coordinator.announcer.hash, round=1, version=0
    )
    return coordinator, terms, blob, type(good)(good.topic, splitter.part(0))


def test_a_sum_with_bits_after_its_last_number_ends_the_round():
    def change(answer):
        ((count, packed),) = answer.groups
        return msgspec.structs.replace(answer, groups=((count, packed[:-1] + bytes([packed[-1] | 0x80])),))

    coordinator, terms, _, part = signed_answer(change)
    assert terms.length * terms.bits % 8, "or there are no such bits"
    commit = commit_of(feed(coordinator, part, now=2.0))
    assert commit.params is None and "bits after its last number" in commit.record.why


@pytest.mark.parametrize("epsilon", [1.1e12, 1e300])
def test_an_epsilon_that_no_ledger_can_hold_is_no_answer(epsilon):
    """It would be written, and the aggregator's next start would call its ledger damaged."""
    _, terms, blob, _ = signed_answer(lambda answer: msgspec.structs.replace(answer, epsilon=epsilon))
    with pytest.raises(ProtocolError, match="can't be"):
        read_answer(blob, "north", helper_keys().signing.public, terms)


def test_the_largest_epsilon_that_may_be_told_is_one_that_a_ledger_can_hold():
    _, terms, blob, _ = signed_answer(lambda answer: msgspec.structs.replace(answer, epsilon=1e12))
    answer = read_answer(blob, "north", helper_keys().signing.public, terms)
    ledger = Ledger("a" * 16, 1e-5).hear(answer.epsilon, "run", 1)
    assert Ledger.of_text(ledger.to_text(), "a" * 16, 1e-5) == ledger
