"""No helper's word alone ends a federation: rounds that are left out, and doubts that wait for the operator."""

from __future__ import annotations

import msgspec
import pytest
from inquiries import EPSILON, NOISY, ROOT_NAME, begun, helper_at, opened_by, warnings
from keyed import SIGNER, certificate
from machines import commit_of, feed, make_manifest, of, status
from masked_rounds import FIVE, answer_of, asked, knows, make_masked, report, round_in, said, terms_maker

from edgefl.coordinator.events import Finished, SignerRead
from edgefl.coordinator.masked.leads import LEAP
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected, Disconnected, Note, Tick, WallTime
from edgefl.masking.exchange import Answer
from edgefl.privacy.ledger import Ledger, SaveLedger
from edgefl.settings import TrainSettings


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
    out = feed(coordinator, knows(coordinator, 11, 5.0))
    assert coordinator.round == 13 and not warnings(out)[1:]


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


def test_i35_the_operators_word_holds_though_the_helper_that_told_was_restored_since():
    """Seed 1007916: the doubt was in memory alone, and the helper knew of less when it was asked again."""
    coordinator, out = restored(None, privacy=msgspec.structs.replace(NOISY, opened=12))
    assert warnings(out) == ["[privacy] opened says that helpers have opened round 12: round 13 is next"]
    out = feed(coordinator, *answer_of(helper_at(8, 9.0), asked(out)))
    assert round_in(out).round == 13 and opened_by(coordinator, out)


def test_a_number_that_our_records_have_leaves_out_nothing():
    coordinator, out = restored(None, privacy=msgspec.structs.replace(NOISY, opened=4))
    out = feed(coordinator, *answer_of(helper_at(4, 9.0), asked(out)))
    assert round_in(out).round == 5 and not any("opened says" in text for text in warnings(out))


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize(("separation", "opened"), [(3, 6), (3, 7), (5, 8)])
def test_i38_all_may_rest_who_were_in_a_sum_that_we_know_nothing_of(separation, opened, operator):
    """Seed 1005105: a device whose disk was wiped since does not know that it rests, and neither do we. Rounds that are
    passed over for the rest of those that we know of are no other case."""
    privacy = msgspec.structs.replace(NOISY, separation=separation, opened=opened * operator)
    coordinator, out = restored(1e6, privacy=privacy)
    out = feed(coordinator, *answer_of(helper_at(opened, 9.0), asked(out)))
    assert round_in(out).round == opened + separation and opened_by(coordinator, out)
    assert coordinator.masked.ledger.round == opened + separation - 1, "on disk too"


def test_rounds_that_all_rest_in_after_a_lead_leave_half_of_the_others_too():
    """Else a helper could end a federation that has a long rest."""
    for separation, opened in ((5, 9), (9, 5)):
        coordinator, _ = restored(1e6, privacy=msgspec.structs.replace(NOISY, separation=separation))
        waits(coordinator, feed(coordinator, knows(coordinator, opened, 5.0)), f"round {opened} of 20 was opened")
    coordinator, _ = restored(1e6, privacy=msgspec.structs.replace(NOISY, separation=5))
    feed(coordinator, knows(coordinator, 8, 5.0))
    assert coordinator.round == 13


def test_the_operators_word_holds_without_noise_too():
    silent = msgspec.structs.replace(NOISY, noise="none", sigma=None, separation=5, opened=7, budget=None)
    coordinator = make_masked(start={"masked": terms_maker(silent)})
    out = feed(coordinator, *map(status, FIVE), Connected())
    assert round_in(out).round == 12 and len(warnings(out)) == 1
    assert not warnings(feed(coordinator, Tick(), Disconnected(), Connected(), now=1.0)), "once"


def test_a_lead_is_heard_though_rounds_that_only_evaluated_have_its_numbers():
    """Nothing is asked before those, and no sum of theirs was opened."""
    changes = {"state": "evaluated", "helped": {}, "devices": []}
    evaluated = [msgspec.structs.replace(record_of(number), **changes) for number in (5, 6)]
    records = [*map(record_of, range(1, 5)), *evaluated]
    ledger = Ledger(ROOT_NAME, NOISY.delta, 5.0, before=5.0)
    noisy = msgspec.structs.replace(NOISY, separation=3)
    start = {"masked": terms_maker(noisy, ledger=ledger, rounds=20), "recent": records, "round": 7, "version": 4}
    coordinator = make_masked(start=start, rounds=20)
    out = feed(coordinator, WallTime(2e9, True), *map(status, FIVE), Connected())
    out = feed(coordinator, *answer_of(helper_at(6, 9.0), asked(out)))
    assert round_in(out).round == 9 and any("has opened round 6" in text for text in warnings(out))


def test_no_number_that_the_operator_may_set_ends_the_numbers_of_rounds():
    coordinator, _ = begun(msgspec.structs.replace(NOISY, opened=2**31, separation=10**6))
    assert round_in(feed(coordinator, knows(coordinator, 0, 5.0))).round == 2**31 + 10**6


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
