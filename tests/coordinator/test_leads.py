"""A helper that knows of more than the aggregator: believed where a database may be restored, and nowhere else."""

from __future__ import annotations

import msgspec
import pytest
from keyed import ROOT, SIGNER, certificate
from machines import FEDERATION, TOPICS, commit_of, feed, of, status
from masked_rounds import (
    FIVE,
    PRIVACY,
    RUN,
    abandoned,
    answer_of,
    asked,
    closed,
    device_key,
    helper_keys,
    make_helper,
    make_masked,
    nothing_known,
    report,
    round_in,
    said,
    terms_maker,
)

from edgefl.coordinator.events import Answered, AskProfile, Finished, Reconfigured, SignerRead
from edgefl.coordinator.masked.leads import LEAP
from edgefl.device.seen import Seen
from edgefl.device.trust import Keys, Pinned
from edgefl.errors import ProtocolError
from edgefl.helper.state import State
from edgefl.machine import Connected, Disconnected, Note, Publish, Received, Tick, WallClock, WallTime
from edgefl.masking.exchange import Answer
from edgefl.privacy import MOST_EPSILON
from edgefl.privacy.ledger import Ledger, SaveLedger
from edgefl.protocol.envelope import Kind
from edgefl.protocol.parts import Splitter
from edgefl.protocol.terms import Terms
from edgefl.trust.ed25519 import fingerprint

NOISY = msgspec.structs.replace(PRIVACY, noise="independent", sigma=1.0, bits=24, budget=40.0)


def says(coordinator, reason="", *, opened=0, epsilon=0.0, unopened=(), name="north") -> Received:
    """A refusal of the set that is asked for, as the helper signs it."""
    unmasking = coordinator._unmasking
    answer = Answer(unmasking.terms.digest, unmasking.set_digest, opened, epsilon, reason=reason, unopened=unopened)
    return said(coordinator, answer, name)


def opened_once(**options):
    """A coordinator whose helper has opened its first round, and that waits for the second; the first one's record."""
    coordinator, _, out = closed(FIVE, **options)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    record = commit_of(out).record
    report(coordinator, out, 3.0)
    return coordinator, record


def restored(**options):
    """A coordinator in an epoch in which no sum was opened yet: its records end an hour ago, with the sum of round 1,
    and it waits for the second one's."""
    _, record = opened_once()
    record = msgspec.structs.replace(record, signer_epoch=0, closed_at=10**9, seconds=10.0)
    start = {"recent": [record], "round": 2, "version": 1, "attempt": 2, **options.pop("start", {})}
    coordinator = make_masked(start=start, **options)
    out = feed(coordinator, WallTime(1e9 + 3600, True), *map(status, FIVE), Connected())
    return coordinator, report(coordinator, out + nothing_known(coordinator), 1.0)


def errors(out) -> list[str]:
    return [note.text for note in of(out, Note) if note.level == "error"]


# Rounds


def test_a_restored_aggregator_loses_one_round_and_not_as_many_as_its_backup_is_old():
    coordinator, _, out = closed(FIVE)
    helper = make_helper(state=State(serial=1, signer_epoch=1, run=RUN, round=57, epoch=1))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    abandoned(out, "old: round 1; round 57 was opened")
    assert round_in(out).round == 58
    out = report(coordinator, out, 3.0)
    commit = commit_of(feed(coordinator, *answer_of(helper, asked(out)), now=4.0))
    assert (commit.record.round, commit.record.state) == (58, "committed")


def test_a_round_whose_answer_is_still_kept_tells_of_the_newest_too():
    coordinator, _, _ = closed(FIVE)
    out = feed(coordinator, says(coordinator, "second: round 1 was opened for another set", opened=4), now=2.0)
    assert round_in(out).round == 5


@pytest.mark.parametrize("reason", ["few: 5 in a group", "run: in one epoch there is one", "box: a", "oldest: "])
def test_a_refusal_for_another_reason_tells_of_no_round_of_this_run(reason):
    coordinator, _, _ = closed(FIVE)
    out = feed(coordinator, says(coordinator, reason, opened=57), now=2.0)
    assert round_in(out).round == 2


def test_one_refusal_leaves_out_a_thousand_rounds_at_most():
    coordinator, _, _ = closed(FIVE)
    out = feed(coordinator, says(coordinator, "old: ", opened=2**32 - 1), now=2.0)
    assert round_in(out).round == LEAP + 2


@pytest.mark.parametrize("opened", [2, 20, 500])
def test_no_refusal_leaves_out_rounds_for_which_nothing_else_accounts(opened):
    coordinator, _, _ = closed(FIVE, rounds=20)
    out = feed(coordinator, says(coordinator, "old: ", opened=opened), now=2.0)
    assert round_in(out).state == "waiting" and not of(out, Finished)
    assert commit_of(out).record.why.endswith("refuses to open the sum: old: ")
    (error,) = errors(out)
    assert f"helper north has signed that round {opened} of 20 was opened" in error
    assert f"set [privacy] opened = {opened} and start it again; else the helper is at fault" in error


def old(coordinator, opened: int, now: float):
    return feed(coordinator, says(coordinator, f"old: round {opened} was opened", opened=opened), now=now)


def led_to_the_end(rounds: int = 5, **options):
    """A coordinator with so few rounds whose helper has had one left out, and opens no other; what it did then."""
    coordinator, _ = restored(rounds=rounds, **options)
    opened = coordinator.round + 1
    out = old(coordinator, opened, 2.0)
    assert round_in(out).round == opened + max(1, coordinator.masked.settings.separation)
    now = 3.0
    while coordinator.phase == "open":
        report(coordinator, out, now)
        out = feed(coordinator, says(coordinator, "few: of 5"), now=now)
        if not errors(out) and coordinator.phase == "waiting":  # for a while: what was refused has cost epsilon
            now = coordinator.wake_at
            out = feed(coordinator, Tick(), now=now)
    return coordinator, out


def test_a_lead_does_not_end_a_federation_and_the_operator_is_told_what_to_do():
    """Else refusals, true or false, would end it with the model that it has, as if its rounds had been run."""
    coordinator, out = led_to_the_end()
    assert not of(out, Finished) and coordinator.phase == "waiting" and round_in(out).state == "waiting"
    (error,) = errors(out)
    assert "left out, since they had been opened before" in error and "raise [rounds] rounds" in error
    out = feed(coordinator, Tick(), *map(status, FIVE), now=1000.0)
    assert not errors(out) and not of(out, Finished), "it is said once"
    assert coordinator.wake_at is None or coordinator.wake_at > 1000.0
    out = feed(coordinator, Disconnected(), Connected(), now=1001.0)
    assert round_in(out).state == "waiting" and not errors(out), "a broker may have lost what it kept"


def test_with_correlated_noise_it_is_told_to_begin_another_run():
    """More rounds than the noise was made for would end the federation instead."""
    banded = msgspec.structs.replace(NOISY, noise="banded", band=2, separation=2, share=1.0)
    ledger = Ledger(fingerprint(ROOT.public), NOISY.delta)
    maker = terms_maker(banded, ledger=ledger, rounds=9)
    maker.ledger = ledger.spend(maker.mechanism, RUN, 1, "the first sum")
    coordinator, out = led_to_the_end(9, start={"masked": maker})
    assert "begin another run" in errors(out)[0] and "raise" not in errors(out)[0]
    config = msgspec.structs.replace(coordinator.config, rounds=30)
    (end,) = of(feed(coordinator, Reconfigured(config, coordinator.gate.settings), now=5.0), Finished)
    assert "of 9: correlated noise is accounted for these rounds alone" in end.reason


def test_a_start_after_the_last_round_that_correlated_noise_is_for_ends_as_any_other():
    """Seed 1009136: it could not account for the round after it, and did not start."""
    banded = msgspec.structs.replace(NOISY, noise="banded", band=2, separation=2, share=1.0)
    ledger = Ledger(fingerprint(ROOT.public), NOISY.delta)
    maker = terms_maker(banded, ledger=ledger, rounds=7)
    spent = ledger.spend(maker.mechanism, RUN, 1, "the first").spend(maker.mechanism, RUN, 7, "the last")
    again = make_masked(rounds=7, start={"masked": terms_maker(banded, ledger=spent, rounds=7), "attempt": 2})
    (end,) = of(feed(again, *map(status, FIVE), Connected()), Finished)
    assert end.reason == "7 rounds are done"


def test_a_profile_that_is_ordered_meanwhile_is_refused_by_what_it_would_wait_for():
    coordinator, _ = led_to_the_end()
    (answer,) = of(feed(coordinator, AskProfile("1"), now=5.0), Answered)
    assert not answer.done and "raise [rounds] rounds" in answer.text


def test_a_restart_does_not_end_it_either():
    _, out = led_to_the_end()
    start = {"recent": [commit_of(out).record], "round": 6, "version": 1, "attempt": 3, "watched": True}
    again = make_masked(rounds=5, start=start)
    out = feed(again, *map(status, FIVE), Connected(), now=5.0)
    assert not of(out, Finished) and errors(out)
    assert any("raise [rounds] rounds" in line for line in again.summary(6.0).advice)


def test_it_goes_on_once_the_operator_has_raised_the_number_of_rounds_and_ends_after_a_sum_was_opened():
    coordinator, _ = led_to_the_end(start={"watched": True})
    config = msgspec.structs.replace(coordinator.config, rounds=6)
    out = feed(coordinator, Reconfigured(config, coordinator.gate.settings), now=5.0)
    assert round_in(out).round == 6
    assert not any("[rounds] rounds" in line for line in coordinator.summary(5.5).advice)
    out = report(coordinator, out, 6.0)
    helper = make_helper(state=State(serial=1, signer_epoch=1, run=RUN, round=3, epoch=1))
    out = feed(coordinator, *answer_of(helper, asked(out)), now=7.0)
    assert commit_of(out).record.state == "committed" and not commit_of(out).record.led
    assert [done.reason for done in of(out, Finished)] == ["6 rounds are done"]


def test_a_federation_whose_last_sum_was_opened_after_a_lead_ends_as_any_other():
    coordinator, _ = restored(rounds=5)
    out = report(coordinator, old(coordinator, 3, 2.0), 3.0)
    helper = make_helper(state=State(serial=1, signer_epoch=1, run=RUN, round=3, epoch=1))
    out = report(coordinator, feed(coordinator, *answer_of(helper, asked(out)), now=4.0), 5.0)
    out = feed(coordinator, *answer_of(helper, asked(out)), now=6.0)
    assert [done.reason for done in of(out, Finished)] == ["5 rounds are done"]


def test_once_a_sum_was_opened_no_helper_leaves_out_rounds():
    coordinator, record = opened_once()
    out = feed(coordinator, says(coordinator, "old: round 2; round 400 was opened", opened=400), now=4.0)
    abandoned_at = commit_of(out).record
    assert abandoned_at.state == "abandoned" and round_in(out).round == 3
    assert "helper north has signed that round 400 was opened, which can't be" in errors(out)[0]
    assert record.signer_epoch == 1


def test_nor_after_a_restart_but_in_the_next_epoch_of_the_certificate():
    _, record = opened_once()
    start = {"recent": [record], "round": 2, "version": 1, "attempt": 2}
    again = make_masked(start=start)
    out = feed(again, *map(status, FIVE), Connected(), now=5.0)
    report(again, out, 6.0)
    out = feed(again, says(again, "old: ", opened=400), now=7.0)
    assert round_in(out).round == 3 and errors(out)
    report(again, out, 8.0)
    feed(again, SignerRead(SIGNER, certificate(serial=2, epoch=2), 2), now=9.0)
    out = feed(again, says(again, "old: ", opened=400), now=10.0)
    assert round_in(out).round == 401 and not errors(out)


def test_rounds_that_are_abandoned_are_no_reason_to_believe_it_again():
    """A start reads the records of the last hundred rounds alone, and in none of these a sum may have been opened."""
    coordinator, _ = opened_once()
    record = commit_of(feed(coordinator, says(coordinator, "few: of 5"), now=4.0)).record
    assert record.state == "abandoned"
    again = make_masked(start={"recent": [record], "round": 3, "version": 1, "attempt": 2})
    out = feed(again, *map(status, FIVE), Connected(), now=5.0)
    report(again, out, 6.0)
    out = feed(again, says(again, "old: ", opened=400), now=7.0)
    assert round_in(out).round == 4 and errors(out)


# Epsilon


def noisy_ledger(epsilon: float = 0.0) -> Ledger:
    return Ledger(fingerprint(ROOT.public), NOISY.delta, epsilon)


def noisy(epsilon: float = 0.0) -> dict:
    return {"start": {"masked": terms_maker(NOISY, ledger=noisy_ledger(epsilon))}}


def paid(ledger: Ledger) -> Ledger:
    """Without what devices were told of the round that is open."""
    return msgspec.structs.replace(ledger, highest=0.0)


def test_a_restored_aggregator_takes_over_what_a_helper_has_seen_spent():
    coordinator, terms, _ = closed(FIVE, **noisy())
    assert 0 < terms.epsilon < 20
    out = feed(coordinator, says(coordinator, "epsilon: 20 was spent", epsilon=20.0), now=2.0)
    assert {save.ledger.epsilon for save in of(out, SaveLedger)} == {20.0}
    assert any("more than our ledger says: it is taken over" in note.text for note in of(out, Note))
    assert Terms.read(round_in(out).terms).epsilon > 20


def test_no_helper_ends_a_federation_by_its_budget_once_it_has_opened_a_sum():
    coordinator, _ = opened_once(**noisy())
    before = coordinator.masked.ledger
    out = feed(coordinator, says(coordinator, "epsilon: 1e9 was spent", epsilon=1e9), now=4.0)
    assert commit_of(out).record.state == "abandoned"
    assert coordinator.phase == "open" and not of(out, Finished)
    assert paid(coordinator.masked.ledger) == paid(before)
    assert "helper north has signed that epsilon 1e+09 is spent, which can't be" in errors(out)[0]


def test_a_rounding_error_that_a_helper_signs_begins_no_other_stretch_of_the_ledger():
    """In which devices would count as if none had taken part before: with a separation, each round at its full cost."""
    coordinator, _ = opened_once(**noisy())
    before = coordinator.masked.ledger
    told = before.epsilon * (1 + 2.0**-40)
    assert told > before.epsilon and before.times == 2
    out = feed(coordinator, says(coordinator, "few: of 5", epsilon=told), now=4.0)
    assert commit_of(out).record.state == "abandoned"
    assert paid(coordinator.masked.ledger) == paid(before) and not errors(out)


def test_nor_by_what_it_signs_beside_a_sum_that_it_opens():
    """No honest helper opens a sum under terms that tell less than it knows: not even the first."""
    coordinator, _, out = closed(FIVE, **noisy())
    before, unmasking = coordinator.masked.ledger, coordinator._unmasking
    lie = Answer(unmasking.terms.digest, unmasking.set_digest, 1, 39.0, ((5, bytes(unmasking.terms.packed_bytes)),))
    place = {"federation": coordinator.announcer.hash, "round": 1, "version": 0}
    splitter = Splitter(lie.to_bytes("north", helper_keys().signing), 60_000, kind=Kind.ANSWER, codec=0, **place)
    out = feed(coordinator, Received(TOPICS.answer("north", 0), splitter.part(0)), now=2.0)
    abandoned(out, "and signs that 39 is spent: it is at fault")
    assert not of(out, Finished) and coordinator.masked.ledger.epsilon < 39 and before.epsilon < 39


@pytest.mark.parametrize("times", [2.0, 1 + 2.0**-40])
def test_a_helper_that_names_a_device_and_more_epsilon_is_not_asked_for_a_smaller_set(times):
    """The ledger that takes its word over has no room for another ask under these terms: that stopped the process."""
    coordinator, terms, _ = closed(FIVE, **noisy())
    told = terms.epsilon * times
    out = feed(coordinator, says(coordinator, "box: b", epsilon=told, unopened=("b",)), now=2.0)
    abandoned(out, "refuses to open the sum: box: b")
    assert {save.ledger.epsilon for save in of(out, SaveLedger)} == {told}
    after = Terms.read(round_in(out).terms)
    assert after.round == 2 and after.epsilon > told and list(coordinator.snapshot().barred) == ["b"]


def test_a_helper_that_is_added_within_an_epoch_is_believed_in_the_next_one():
    """It may have served before, and know of more; or it lies, to end a federation that has a budget. The log says what
    to do, and the next epoch is the operator's word for it."""
    coordinator, record = opened_once(**noisy())
    ledger, both = coordinator.masked.ledger, msgspec.structs.replace(NOISY, helpers="north, south")
    start = {"recent": [record], "round": 3, "version": 1, "attempt": 2, "masked": terms_maker(both, ledger=ledger)}
    again = make_masked(start=start)
    report(again, feed(again, *map(status, FIVE), Connected(), now=5.0), 6.0)
    out = feed(again, says(again, "epsilon: 20 was spent", epsilon=20.0, name="south"), now=7.0)
    assert again.masked.ledger.epsilon < 20
    (error,) = errors(out)
    assert error.startswith("helper south has signed that epsilon 20 is spent, and only others have opened sums in")
    assert "If it has served this federation before, begin the next epoch (`edgefl keys epoch`)" in error
    report(again, out, 8.0)
    feed(again, SignerRead(SIGNER, certificate(serial=2, epoch=2), 2), now=9.0)
    out = feed(again, says(again, "epsilon: 20 was spent", epsilon=20.0, name="south"), now=10.0)
    assert again.masked.ledger.epsilon == 20 and not errors(out)
    out = nothing_known(again, now=10.0)
    assert Terms.read(round_in(out).terms).epsilon > 20


def heard_by(device: str, seen: Seen | None = None):
    """A device that judges each round's terms, as its disk knows them."""
    own = Pinned(TOPICS, device, FEDERATION, Keys(ROOT.public, device_key(device), seen), WallClock())

    def hear(out):
        round = round_in(out)
        terms = Terms.read(round.terms)
        own.check_terms(terms, round, 0.0)
        return terms

    return hear


def test_i38_more_noise_after_an_abandoned_round_is_refused_by_no_device():
    """They were told what that round would have cost, and its noise was never used; less they go by no more."""
    hear, coordinator = heard_by("a"), make_masked(**noisy())
    feed(coordinator, *map(status, FIVE), Connected())
    first = hear(nothing_known(coordinator))
    out = feed(coordinator, *(status(device, "lost") for device in FIVE[1:]), now=1.0)
    while (commit := commit_of(out)) is None:
        out = feed(coordinator, Tick(), now=coordinator.wake_at)
    assert commit.record.state == "abandoned"
    ledger = coordinator.masked.ledger
    assert (ledger.epsilon, ledger.highest) == (0.0, first.epsilon), "nothing was spent"
    louder, helper, told = msgspec.structs.replace(NOISY, sigma=2.0), make_helper(), [first.epsilon]
    start = {"recent": [commit.record], "round": 2, "attempt": 2, "masked": terms_maker(louder, ledger=ledger)}
    again = make_masked(start=start)
    feed(again, *map(status, FIVE), Connected(), now=3e4)
    out = nothing_known(again, now=3e4)
    for round in range(2, 8):
        told.append(hear(out).epsilon)
        out = report(again, out, 3e4 + round)
        out = feed(again, *answer_of(helper, asked(out)), now=3e4 + round)
        assert commit_of(out).record.state == "committed" and not errors(out)
        assert again.masked.ledger.epsilon == helper.state.epsilon == told[-1]
    assert told == sorted(told) and told[1] == told[0] and told[-1] > told[0]


def test_i38_what_devices_say_that_they_were_told_lets_a_restored_federation_go_on():
    """No helper knows of it, since the sums of those rounds were never opened."""
    hear, helper = heard_by("a", Seen(1, 1, epsilon=9.5)), make_helper()
    for told in (0.0, 9.5):
        maker = terms_maker(msgspec.structs.replace(NOISY, told=told), ledger=noisy_ledger())
        coordinator = make_masked(start={"masked": maker})
        feed(coordinator, *map(status, FIVE), Connected())
        out = nothing_known(coordinator)
        if not told:
            with pytest.raises(ProtocolError, match=r"epsilon falls from 9.5 to .* sets \[privacy\] told"):
                hear(out)
    assert [action.ledger.highest for action in of(out, SaveLedger)] == [9.5], "on disk before it is told"
    for number in range(3):
        terms = hear(out)
        assert terms.epsilon == 9.5 if number == 0 else terms.epsilon > 9.5
        out = report(coordinator, out, 2.0 + number)
        out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0 + number)
        assert commit_of(out).record.state == "committed"
        assert coordinator.masked.ledger.epsilon == helper.state.epsilon == terms.epsilon


def test_a_helper_that_says_the_most_leaves_a_ledger_that_a_start_can_read():
    """More than it said would be told in the next round, and what is told is on disk before."""
    privacy = msgspec.structs.replace(NOISY, budget=None)
    ledger = Ledger(fingerprint(ROOT.public), NOISY.delta)
    coordinator, _, _ = closed(FIVE, start={"masked": terms_maker(privacy, ledger=ledger)})
    assert not of(feed(coordinator, says(coordinator, "epsilon: so", epsilon=MOST_EPSILON), now=2.0), SaveLedger)
    coordinator, _, _ = closed(FIVE, start={"masked": terms_maker(privacy, ledger=ledger)})
    coordinator.masked.settings = msgspec.structs.replace(privacy, told=MOST_EPSILON)  # as its operator says
    out = feed(coordinator, says(coordinator, "epsilon: so", epsilon=MOST_EPSILON), now=2.0)
    saved = of(out, SaveLedger)[-1].ledger
    assert saved.epsilon == MOST_EPSILON and Ledger.of_text(saved.to_text(), saved.root, saved.delta) == saved
    (end,) = of(out, Finished)
    assert "no round can tell more than 1e+12" in end.reason and "at fault" in end.reason


def test_what_devices_are_told_is_durable_before_it_is_told():
    coordinator = make_masked(**noisy())
    feed(coordinator, *map(status, FIVE), Connected())
    out = nothing_known(coordinator)
    (place,) = [at for at, action in enumerate(out) if isinstance(action, SaveLedger)]
    (told,) = [at for at, action in enumerate(out) if isinstance(action, Publish) and action.topic == TOPICS.round]
    assert place < told and out[place].ledger.highest == Terms.read(round_in(out).terms).epsilon


def test_what_an_honest_helper_signs_is_never_beyond_our_ledger():
    """Over rounds, and with a round that is lost on the way."""
    coordinator, _, out = closed(FIVE, **noisy())
    helper = make_helper()
    for now in (2.0, 4.0, 6.0):
        answers = answer_of(helper, asked(out))
        if now == 4.0:
            out = feed(coordinator, says(coordinator, "weak: it says no", epsilon=helper.state.epsilon), now=now)
        else:
            out = feed(coordinator, *answers, now=now)
            assert commit_of(out).record.state == "committed"
        assert not errors(out)
        out = report(coordinator, out, now + 1)
