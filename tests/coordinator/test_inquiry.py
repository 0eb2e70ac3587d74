"""Before the first round with noise, helpers tell what they know: a restored or new aggregator goes on by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from inquiries import BOTH, EPSILON, NOISY, ROOT_NAME, begun, helper_at, opened_by, warnings
from keyed import ROOT
from machines import FEDERATION, TOPICS, commit_of, feed, of, status
from masked_rounds import (
    FIVE,
    PRIVACY,
    RUN,
    answer_of,
    asked,
    device_key,
    helper_certificate,
    helper_keys,
    knows,
    make_helper,
    make_masked,
    nothing_known,
    party,
    report,
    round_in,
    saved_in,
    terms_maker,
)

from edgefl.coordinator.events import HelpersRead, SaveAsk
from edgefl.device.seen import Seen
from edgefl.device.trust import Keys, Pinned
from edgefl.errors import ProtocolError
from edgefl.machine import Connected, Disconnected, Publish, Received, Tick, WallClock
from edgefl.privacy.ledger import Ledger, SaveLedger
from edgefl.protocol.terms import Terms


def remembers(device: str, epsilon: float):
    """A device that remembers so much; what it does with the round that is announced."""
    keys = Keys(ROOT.public, device_key(device), Seen(epsilon=epsilon))
    own = Pinned(TOPICS, device, FEDERATION, keys, WallClock())

    def judges(out) -> None:
        round = round_in(out)
        own.check_terms(Terms.read(round.terms), round, 0.0)

    return judges


def test_i38_a_restored_aggregator_tells_no_less_than_devices_remember_and_goes_on():
    """Devices refuse a round that tells less, so no set is ever shown to a helper that could say more."""
    judges = remembers("a", EPSILON)
    told_nothing, _ = begun(epsilon=5.0)
    with pytest.raises(ProtocolError, match=r"epsilon falls from 36\.9 to"):
        judges(nothing_known(told_nothing))
    coordinator, out = begun(epsilon=5.0)
    assert not opened_by(coordinator, out), "it waits for the helper's word"
    helper = helper_at(8)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=1.0)
    assert round_in(out).round == 9 and opened_by(coordinator, out)
    judges(out)
    (saved, left_out, told) = of(out, SaveLedger)
    assert left_out.ledger.round == 8
    assert (saved.ledger.epsilon, saved.ledger.round) == (EPSILON, 0) and told.ledger.highest > EPSILON
    (place,) = [at for at, action in enumerate(out) if isinstance(action, Publish) and action.topic == TOPICS.round]
    assert out.index(saved) < place, "it is durable before it is told"
    out = report(coordinator, out, 2.0)
    record = commit_of(feed(coordinator, *answer_of(helper, asked(out)), now=3.0)).record
    assert (record.state, record.round) == ("committed", 9) and record.epsilon > EPSILON
    assert coordinator.phase == "open" and coordinator._inquiry is None, "all know the same: nothing is asked"


def test_i35_a_round_that_a_helper_tells_of_stays_left_out_though_that_helper_is_restored_then():
    """And this aggregator was killed before it paid for another round."""
    coordinator, _ = begun(ledger=Ledger(ROOT_NAME, NOISY.delta, 1.0, RUN, 3, before=1.0))
    out = feed(coordinator, knows(coordinator, 57, EPSILON), now=1.0)
    assert round_in(out).round == 58
    saved = [action.ledger for action in of(out, SaveLedger)]
    again, _ = begun(ledger=saved[-1])
    assert round_in(feed(again, knows(again, 4, 2.0), now=1.0)).round == 58


def test_i38_another_run_spends_on_from_what_helpers_know_and_begins_with_its_first_round():
    coordinator, out = begun()
    helper = helper_at(8, run="ff" * 8, signer_epoch=0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=1.0)
    assert round_in(out).round == 1
    remembers("a", EPSILON)(out)
    out = report(coordinator, out, 2.0)
    commit = commit_of(feed(coordinator, *answer_of(helper, asked(out)), now=3.0))
    assert commit.record.state == "committed" and helper.state.run == RUN


def test_a_fresh_federation_opens_its_first_round_after_one_exchange():
    coordinator, out = begun()
    helper = make_helper()
    before = helper.state
    asks = asked(out)
    assert asks and not of(out, SaveAsk) and not of(out, SaveLedger)
    out = feed(coordinator, *answer_of(helper, asks))
    assert opened_by(coordinator, out) and round_in(out).round == 1 and not warnings(out)
    assert (helper.state, helper.refused, helper.opened) == (before, 0, 0)


def test_without_noise_nothing_is_asked():
    coordinator = make_masked()
    out = feed(coordinator, *map(status, FIVE), Connected())
    assert opened_by(coordinator, out) and not asked(out)


def test_nothing_is_asked_in_an_epoch_in_which_a_sum_was_opened_but_in_the_next():
    coordinator, out = begun()
    helper = make_helper()
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out))), 1.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    record = commit_of(out).record
    assert opened_by(coordinator, out) and not asked(out)
    start = {"recent": [record], "round": 2, "version": 1, "attempt": 2}
    again, out = begun(epsilon=record.epsilon, **start)
    assert opened_by(again, out) and not asked(out)
    again, out = begun(epsilon=record.epsilon, epoch=2, **start)
    assert asked(out) and not opened_by(again, out)
    out = feed(again, *answer_of(helper, asked(out)), now=3.0)
    assert opened_by(again, out) and round_in(out).round == 2 and not warnings(out), "it knows of no more"


def test_i38_a_backup_of_a_sum_that_was_still_to_be_opened_asks_before_the_next_round():
    """The helper has kept its answer, so the sum is opened in this epoch, and says nothing of the rounds after it."""
    coordinator, out = begun()
    helper, kept = make_helper(), {}
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out), kept)), 1.0)
    backup = {"asked": saved_in(out), "masked": terms_maker(NOISY, ledger=of(out, SaveLedger)[-1].ledger)}
    for now in (2.0, 3.0):
        out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out), kept), now=now), now)
    newest = commit_of(feed(coordinator, *answer_of(helper, asked(out), kept), now=4.0)).record
    restored, out = begun(epoch=2, attempt=2, **backup)
    out = feed(restored, *answer_of(helper, asked(out), kept), now=5.0)
    assert commit_of(out).record.round == 1 and not opened_by(restored, out), "the helper may know of more"
    out = feed(restored, *answer_of(helper, asked(out), kept), now=6.0)
    assert opened_by(restored, out) and round_in(out).round == newest.round + 1
    assert Terms.read(round_in(out).terms).epsilon > newest.epsilon


def test_the_highest_word_of_several_helpers_counts_and_all_are_waited_for():
    coordinator, out = begun(BOTH, epsilon=5.0)
    assert asked(out) and asked(out, "south")
    out = feed(coordinator, knows(coordinator, 7, 20.0), now=0.5)
    assert not out and coordinator._inquiry.silent == ["south"]
    out = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert asked(out, "south") and not asked(out), "the helper that has answered is not asked again"
    out = feed(coordinator, knows(coordinator, 3, EPSILON, name="south"), now=3.0)
    assert round_in(out).round == 8 and coordinator.masked.ledger.epsilon == EPSILON


def test_a_helper_that_was_restored_itself_lowers_nothing():
    coordinator, out = begun(epsilon=50.0, round=30, version=0)
    out = feed(coordinator, *answer_of(helper_at(8), asked(out)), now=1.0)
    assert round_in(out).round == 30 and coordinator.masked.ledger.epsilon == 50.0
    assert not warnings(out)


@pytest.mark.parametrize("reason", ["run: it is over", "certificate: it was replaced", "helper: of epoch 2"])
def test_of_a_refusal_epsilon_counts_and_no_round(reason):
    coordinator, _ = begun(epsilon=5.0)
    out = feed(coordinator, knows(coordinator, 57, EPSILON, reason=reason), now=1.0)
    assert round_in(out).round == 1 and coordinator.masked.ledger.epsilon == EPSILON


def test_a_sum_that_is_refused_says_what_it_has_cost():
    """An operator who reads the log can stop the aggregator before the budget is gone."""
    coordinator, _ = begun()
    out = report(coordinator, nothing_known(coordinator), 1.0)
    out = feed(coordinator, *answer_of(make_helper(least=6), asked(out)), now=2.0)
    (text,) = (text for text in warnings(out) if "abandoned" in text)
    spent = coordinator.masked.ledger.epsilon
    assert spent and text.endswith(f"; it has cost its epsilon all the same: {spent:.3g} is spent")
    assert commit_of(out).record.why in text and "cost" not in commit_of(out).record.why


def test_a_helper_that_is_silent_is_asked_again_and_named():
    coordinator, _ = begun(watched=True)
    first = coordinator._inquiry.terms
    (advice,) = [line for line in coordinator.summary(0.5).advice if "north" in line]
    assert "no round opens before helper north has said what it knows of epsilon: is it running" in advice
    times, said, now = [], [], 0.0
    while now < 2 * PRIVACY.helper_s + 1:
        out = feed(coordinator, Tick(), *map(status, FIVE), now=now)
        times += [now] if asked(out) else []
        said += [now for text in warnings(out) if "helper north" in text]
        assert coordinator.wake_at > now, "it does not spin"
        now = coordinator._inquiry.wake_at
    assert times[:4] == [1.0, 3.0, 7.0, 15.0] and max(b - a for a, b in pairwise(times)) <= 10.0
    assert said == [40.0, 80.0] and coordinator._inquiry.terms == first
    out = feed(coordinator, knows(coordinator), now=now)
    assert opened_by(coordinator, out)
    assert not any("north" in line for line in coordinator.summary(now).advice)


def test_after_a_while_devices_are_told_that_no_round_is_open():
    coordinator, _ = begun()
    out = feed(coordinator, Tick(), now=PRIVACY.helper_s)
    assert round_in(out).state == "waiting"
    assert not of(feed(coordinator, Tick(), now=2 * PRIVACY.helper_s), Publish, TOPICS.round)


def test_a_helper_that_is_off_line_costs_one_round_and_not_the_budget():
    """Each round is paid for before helpers are asked for its sum."""
    coordinator, out = begun(watched=True)
    helper = make_helper()
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out))), 1.0)
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out)), now=2.0), 3.0)
    paid, now = coordinator.masked.ledger.epsilon, 3.0
    while now < 1e5:
        out = feed(coordinator, Tick(), now=now)
        now = max(now + 10.0, coordinator.wake_at)
    assert coordinator.phase == "waiting" and coordinator.masked.ledger.epsilon == paid
    assert any("before helper north has said what it knows" in line for line in coordinator.summary(now).advice)
    out = feed(coordinator, Tick(), now=now)
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out)), now=now), now)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=now)
    assert (commit_of(out).record.round, commit_of(out).record.state) == (3, "committed")
    assert opened_by(coordinator, out), "it has answered for this one"


def test_a_connection_that_was_lost_and_a_restart_ask_anew():
    coordinator, _ = begun(BOTH)
    feed(coordinator, knows(coordinator), now=1.0)
    out = feed(coordinator, Disconnected(), now=1.5)
    assert not asked(feed(coordinator, Tick(), now=20.0))
    out = feed(coordinator, Connected(), now=21.0)
    assert asked(out) and asked(out, "south")
    again, out = begun(BOTH, attempt=2)
    assert asked(out) and asked(out, "south") and not opened_by(again, out)


def test_other_keys_of_a_helper_are_asked_under_terms_that_name_them():
    coordinator, out = begun(epsilon=5.0)
    second = helper_keys(epoch=2)
    helper = helper_at(8, keys=second)
    with_old_keys = feed(coordinator, *answer_of(helper, asked(out)), now=1.0)
    assert any("has not signed" in text for text in warnings(with_old_keys)) and coordinator._inquiry is not None
    feed(coordinator, HelpersRead((party(second),), (helper_certificate(second),)), now=2.0)
    out = feed(coordinator, Tick(), now=coordinator._inquiry.wake_at)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=9.0)
    assert round_in(out).round == 9 and coordinator.masked.ledger.epsilon == EPSILON


def test_what_is_no_answer_to_this_question_changes_nothing():
    coordinator, _ = begun()
    good = knows(coordinator, 57, EPSILON)
    other = make_masked(start={"masked": terms_maker(NOISY, ledger=Ledger(ROOT_NAME, NOISY.delta, 99.0, before=99.0))})
    feed(other, *map(status, FIVE), Connected())
    flipped = Received(good.topic, good.payload[:-1] + bytes([good.payload[-1] ^ 1]))
    for wrong in (knows(other, 57, EPSILON), flipped, Received(TOPICS.answer("east", 0), good.payload)):
        out = feed(coordinator, wrong, now=1.0)
        assert coordinator._inquiry is not None and not of(out, SaveLedger) and not opened_by(coordinator, out)
    assert opened_by(coordinator, feed(coordinator, good, now=2.0))
    late = feed(coordinator, good, now=3.0)
    assert not of(late, SaveLedger) and not of(late, Publish, TOPICS.round)


@pytest.mark.parametrize("restart", [True, False])
def test_i35_an_answer_to_an_earlier_question_answers_no_later_one(restart):
    """Seed 2001835: an aggregator that was restored twice took the first answer for the second, and opened a round of
    which the helper could have told by then."""
    coordinator, _ = begun(instance=1)
    kept = knows(coordinator, 1, 2.0)
    if restart:
        coordinator, _ = begun(instance=2, attempt=2)
    else:  # the helper has not answered for a sum, so it is asked again
        feed(coordinator, kept, now=1.0)
        coordinator._unheard, coordinator.phase, coordinator.round = True, "waiting", 1
        feed(coordinator, Tick(), now=2.0)
    before = coordinator._inquiry
    assert before is not None
    out = feed(coordinator, kept, now=3.0)
    assert coordinator._inquiry is before and before.silent and not opened_by(coordinator, out)
    assert opened_by(coordinator, feed(coordinator, knows(coordinator, 3, 4.0), now=4.0)) and coordinator.round == 4
