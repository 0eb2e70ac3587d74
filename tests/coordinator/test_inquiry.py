"""Before the first round with noise, helpers tell what they know: a restored or new aggregator goes on by itself."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from keyed import ROOT, SIGNER, certificate
from machines import FEDERATION, TOPICS, commit_of, feed, make_manifest, of, status
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
    roster,
    round_in,
    said,
    saved_in,
    terms_maker,
)

from edgefl.coordinator.events import Finished, HelpersRead, SaveAsk, SignerRead
from edgefl.coordinator.masked.leads import LEAP
from edgefl.device.seen import Seen
from edgefl.device.trust import Keys, Pinned
from edgefl.errors import ProtocolError
from edgefl.helper.state import State
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Tick, WallClock, WallTime
from edgefl.masking.exchange import Answer
from edgefl.privacy.ledger import Ledger, SaveLedger
from edgefl.protocol.terms import Terms
from edgefl.settings import TrainSettings
from edgefl.trust.ed25519 import fingerprint

NOISY = msgspec.structs.replace(PRIVACY, noise="independent", sigma=1.0, bits=24, budget=200.0)
BOTH = msgspec.structs.replace(NOISY, helpers="north, south")
EPSILON = 36.9  # that a helper knows of
ROOT_NAME = fingerprint(ROOT.public)


def begun(privacy=NOISY, *, epsilon=0.0, ledger=None, epoch=1, rounds=0, config=None, **start):
    """A coordinator to which all devices are connected, whose ledger has so much, or is this one; what it has done."""
    ledger = ledger or Ledger(ROOT_NAME, NOISY.delta, epsilon, before=epsilon)
    start = {"masked": terms_maker(privacy, ledger=ledger, rounds=rounds), **start}
    if epoch > 1:
        start["keys"] = SignerRead(SIGNER, certificate(serial=epoch, epoch=epoch), epoch), roster()
    coordinator = make_masked(start=start, **(config or {}))
    return coordinator, feed(coordinator, *map(status, FIVE), Connected())


def helper_at(round: int, epsilon=EPSILON, run=RUN, signer_epoch=1, **options):
    """A helper that has opened so many rounds of this run, in an epoch of the aggregator's certificate."""
    ledger = Ledger(ROOT_NAME, NOISY.delta, epsilon, before=epsilon)
    return make_helper(
        state=State(serial=1, signer_epoch=signer_epoch, run=run, round=round, epoch=1, ledger=ledger), **options
    )


def remembers(device: str, epsilon: float):
    """A device that remembers so much; what it does with the round that is announced."""
    keys = Keys(ROOT.public, device_key(device), Seen(epsilon=epsilon))
    own = Pinned(TOPICS, device, FEDERATION, keys, WallClock())

    def judges(out) -> None:
        round = round_in(out)
        own.check_terms(Terms.read(round.terms), round, 0.0)

    return judges


def opened_by(coordinator, out) -> bool:
    """Whether a round was opened."""
    return coordinator.phase == "open" and bool(of(out, Publish, TOPICS.round))


def warnings(out) -> list[str]:
    return [note.text for note in of(out, Note) if note.level in ("warning", "error")]


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


# What no helper's word does by itself


def waits(coordinator, out, *words: str) -> None:
    """The federation waits for its operator, and says once why; it has neither ended nor changed anything."""
    assert coordinator.phase == "waiting" and not of(out, Finished) and not of(out, SaveLedger)
    assert round_in(out).state == "waiting"
    (error,) = [note.text for note in of(out, Note) if note.level == "error"]
    for word in ("waits for its operator: helper north has signed", "else the helper is at fault", *words):
        assert word in error
    assert any(words[0] in line for line in coordinator.summary(50.0).advice)
    out = feed(coordinator, Tick(), *map(status, FIVE), now=1000.0)
    assert not of(out, Finished) and not warnings(out) and coordinator.phase == "waiting"


@pytest.mark.parametrize(
    ("ours", "budget", "told"),
    [(5.0, 37.0, 36.9), (5.0, 37.0, 1e9), (5.0, 37.0, 21.1), (0.0, 37.0, 18.6), (0.0, None, 1e12), (35.6, 37.0, 36.2)],
    ids=["nearly all", "more than all", "more than half", "of a new ledger", "without a budget", "the last round"],
)
def test_a_helper_ends_no_federation_by_its_budget(ours, budget, told):
    coordinator, _ = begun(msgspec.structs.replace(NOISY, budget=budget), epsilon=ours, watched=True)
    before = coordinator.masked.ledger
    waits(
        coordinator, feed(coordinator, knows(coordinator, 0, told), now=1.0), f"epsilon {told:.6g} is spent", "told ="
    )
    assert coordinator.masked.ledger == before


def test_half_of_what_the_budget_leaves_is_taken_over_by_itself():
    coordinator, _ = begun(msgspec.structs.replace(NOISY, budget=105.0), epsilon=5.0)
    assert opened_by(coordinator, feed(coordinator, knows(coordinator, 0, 55.0), now=1.0))


def test_not_half_after_half_either():
    """By refusals: each of them is a lead, as long as no sum is opened."""
    coordinator, _ = begun(msgspec.structs.replace(NOISY, budget=105.0), epsilon=5.0)
    out = report(coordinator, feed(coordinator, knows(coordinator, 0, 50.0), now=1.0), 2.0)
    unmasking = coordinator._unmasking
    lie = Answer(unmasking.terms.digest, unmasking.set_digest, 0, 60.0, reason="epsilon: so")
    out = feed(coordinator, said(coordinator, lie), now=3.0)
    assert coordinator.phase == "waiting" and coordinator.masked.ledger.epsilon < 60
    assert any("more than half of what is left by our own ledger" in text for text in warnings(out))


def test_nor_after_a_restart_until_a_sum_was_opened():
    """A helper that opens nothing has its aggregator restarted, and would take half of the rest at each start."""
    noisy = msgspec.structs.replace(NOISY, budget=105.0)
    coordinator, _ = begun(noisy, epsilon=5.0)
    feed(coordinator, knows(coordinator, 0, 50.0), now=1.0)
    again, _ = begun(noisy, ledger=coordinator.masked.ledger, attempt=2)
    lie = feed(again, knows(again, 0, 60.0), now=1.0)
    assert again.phase == "waiting" and any("our own ledger, which has 5 of 105" in text for text in warnings(lie))
    again, out = begun(noisy, ledger=coordinator.masked.ledger, attempt=2)
    helper = helper_at(0, 50.0)
    out = report(again, feed(again, *answer_of(helper, asked(out)), now=1.0), 2.0)
    assert commit_of(feed(again, *answer_of(helper, asked(out)), now=3.0)).record.state == "committed"
    assert again.masked.ledger.taken == 0 and again.masked.ledger.epsilon > 50


def test_the_operator_says_that_so_much_is_spent():
    """As the log asks for: the number in it is enough."""
    noisy = msgspec.structs.replace(NOISY, budget=60.0)
    coordinator, out = begun(noisy, epsilon=5.0)
    (text,) = [text for text in warnings(feed(coordinator, *answer_of(helper_at(8), asked(out)))) if "told" in text]
    told = float(text.partition("told = ")[2].split()[0])
    assert EPSILON <= told <= EPSILON * (1 + 2e-5)
    coordinator, out = begun(msgspec.structs.replace(noisy, told=told), epsilon=5.0, attempt=2)
    helper = helper_at(8)
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out)), now=1.0), 2.0)
    assert commit_of(feed(coordinator, *answer_of(helper, asked(out)), now=3.0)).record.state == "committed"
    coordinator, out = begun(msgspec.structs.replace(noisy, told=told, budget=37.0), epsilon=5.0, attempt=3)
    (end,) = of(feed(coordinator, *answer_of(helper_at(8), asked(out)), now=1.0), Finished)
    assert "the privacy budget is spent: epsilon is 36.9" in end.reason


def record_of(round: int) -> RoundRecord:
    """That of a sum that was opened in the epoch before, in ten seconds."""
    return RoundRecord(
        round, "committed", round, 5, list(FIVE), 5, None, 0, 0, 10.0, helped={"north": 1}, signer_epoch=0,
        closed_at=10**9, epsilon=5.0,
    )  # fmt: skip


def restored(since_s: float | None, *, privacy=NOISY, newest=4, **config):
    """A coordinator of twenty rounds whose records end with that one, so long ago; what helpers are asked."""
    start = {"recent": [record_of(round) for round in range(1, newest + 1)], "watched": True}
    start |= {"round": newest + 1, "version": newest}
    config = {"rounds": 20} | config
    wall = [] if since_s is None else [WallTime(1e9 + since_s, True)]
    ledger = Ledger(ROOT_NAME, NOISY.delta, 5.0, before=5.0)
    coordinator = make_masked(start={"masked": terms_maker(privacy, ledger=ledger, rounds=20), **start}, **config)
    return coordinator, feed(coordinator, *wall, *map(status, FIVE), Connected())


@pytest.mark.parametrize(("since_s", "opened"), [(40.0, 8), (1e6, 12)])
def test_rounds_for_which_there_was_time_are_left_out_without_the_operator(since_s, opened):
    coordinator, out = restored(since_s)
    out = feed(coordinator, *answer_of(helper_at(opened, 9.0), asked(out)))
    assert round_in(out).round == opened + 1 and opened_by(coordinator, out)


@pytest.mark.parametrize(
    ("since_s", "opened"), [(40.0, 9), (1e6, 13), (1e6, 20), (1e6, 2**32 - 1), (-1e6, 5), (None, 5)],
    ids=["no time", "more than half", "all", "more than all", "a clock that is wrong", "no clock"],
)  # fmt: skip
def test_a_helper_leaves_out_no_more_of_a_fixed_number_of_rounds(since_s, opened):
    coordinator, _ = restored(since_s)
    out = feed(coordinator, knows(coordinator, opened, 5.0))
    waits(coordinator, out, f"round {opened} of 20 was opened", f"opened = {opened} ")


@pytest.mark.parametrize(("separation", "opened"), [(0, 9), (1, 9), (2, 13)])
def test_no_more_rounds_are_passed_over_than_devices_rest(separation, opened):
    coordinator, _ = restored(40.0, privacy=msgspec.structs.replace(NOISY, separation=separation))
    waits(coordinator, feed(coordinator, knows(coordinator, opened, 5.0)), f"round {opened} of 20 was opened")


def test_rounds_that_were_passed_over_since_devices_rested_have_taken_no_time():
    """Where all devices report to each round, one in as many is run as the separation has."""
    coordinator, _ = restored(40.0, privacy=msgspec.structs.replace(NOISY, separation=2))
    out = feed(coordinator, knows(coordinator, 12, 5.0))
    assert coordinator.round >= 13 and not warnings(out)[1:]


@pytest.mark.parametrize(("since_s", "opened"), [(1e6, 27), (1e6, 2**31), (40.0, 9), (None, 5)])
def test_a_helper_leaves_no_learning_rate_that_is_less_than_half_of_what_it_was(since_s, opened):
    """It falls by a round's number: a thousand rounds that are left out would end all learning, as if they were all."""
    manifest = make_manifest(train=TrainSettings(lr_decay=0.97))
    coordinator, _ = restored(since_s, rounds=None, manifest=manifest)
    out = feed(coordinator, knows(coordinator, opened, 5.0))
    waits(coordinator, out, f"round {opened} was opened", f"opened = {opened} ")
    privacy = msgspec.structs.replace(NOISY, opened=opened)
    coordinator, _ = restored(since_s, rounds=None, manifest=manifest, privacy=privacy)
    assert round_in(feed(coordinator, knows(coordinator, opened, 5.0))).round == opened + 1


def test_where_the_learning_rate_falls_as_many_rounds_are_left_out_as_there_was_time_for():
    for since_s, opened in ((40.0, 8), (1e6, 26)):
        coordinator, _ = restored(since_s, rounds=None, manifest=make_manifest(train=TrainSettings(lr_decay=0.97)))
        out = feed(coordinator, knows(coordinator, opened, 5.0))
        assert round_in(out).round == opened + 1 and opened_by(coordinator, out)


def test_a_new_federation_begins_with_its_first_round_or_waits():
    """No sum is in its records: so none was opened, or the operator knows of it."""
    coordinator, _ = begun(config={"rounds": 20}, watched=True)
    waits(coordinator, feed(coordinator, WallTime(1e9, True), knows(coordinator, 20)), "round 20 of 20 was opened")


def test_the_operator_says_that_so_many_rounds_were_run():
    coordinator, out = restored(None, privacy=msgspec.structs.replace(NOISY, opened=15))
    out = feed(coordinator, *answer_of(helper_at(15, 9.0), asked(out)))
    assert round_in(out).round == 16 and opened_by(coordinator, out)
    coordinator, _ = restored(None, privacy=msgspec.structs.replace(NOISY, opened=15))
    waits(coordinator, feed(coordinator, knows(coordinator, 16, 5.0)), "round 16 of 20 was opened")


@pytest.mark.parametrize("rounds", [5000, None])
def test_rounds_that_the_operator_accounts_for_are_left_out_at_once(rounds):
    """Else one in a thousand would be asked for in vain, and paid for."""
    coordinator, out = begun(msgspec.structs.replace(NOISY, opened=3000), config={"rounds": rounds})
    out = feed(coordinator, *answer_of(helper_at(3000, 9.0), asked(out)))
    assert round_in(out).round == 3001 and opened_by(coordinator, out)


def test_both_doubts_are_told_and_the_next_epoch_asks_again():
    coordinator, _ = restored(None)
    out = feed(coordinator, knows(coordinator, 20, 199.0))
    waits(coordinator, out, "round 20 of 20 was opened", "told = 199 ", "opened = 20 ")
    out = feed(coordinator, SignerRead(SIGNER, certificate(serial=2, epoch=2), 2), now=2000.0)
    assert asked(out) and not opened_by(coordinator, out)
    assert opened_by(coordinator, feed(coordinator, knows(coordinator, 4, 5.0), now=2001.0))


def test_a_certificate_that_is_renewed_in_its_epoch_settles_no_doubt():
    coordinator, _ = restored(None)
    feed(coordinator, knows(coordinator, 20, 5.0))
    feed(coordinator, SignerRead(SIGNER, certificate(serial=2, epoch=1), 1), Tick(), now=2000.0)
    assert coordinator.phase == "waiting"


def test_one_answer_leaves_out_a_thousand_rounds_at_most():
    coordinator, _ = begun()
    assert round_in(feed(coordinator, knows(coordinator, 2**32 - 1), now=1.0)).round == LEAP + 1


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
