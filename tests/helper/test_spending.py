"""A helper computes epsilon itself: terms that tell less are refused, and what it has spent outlives it."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from helped import (
    DEVICES,
    ROOT,
    Desk,
    Killed,
    ask_of,
    blob_of,
    certificate,
    entry_of,
    keys_of,
    parts_of,
    refused,
    terms_of,
)

from edgefl.helper.events import JobDone, Open
from edgefl.helper.least import Least
from edgefl.helper.opening import Sums
from edgefl.helper.refusal import Refusal
from edgefl.helper.spending import pay
from edgefl.privacy.accountant import Mechanism
from edgefl.privacy.ledger import Ledger
from edgefl.protocol.messages import decode
from edgefl.protocol.round import MAX_TERMS
from edgefl.protocol.terms import Noise, Terms
from edgefl.trust.ed25519 import fingerprint

NOISE = {"kind": "independent", "sigma": 300.0}
DP = {"noise": NOISE, "bits": 17}
TERMS = terms_of(1, **DP)
SELDOM = {**DP, "noise": {**NOISE, "separation": 3}}


def opened(desk: Desk, terms, devices=DEVICES[:3], **options):
    answer = desk.ask(ask_of(terms, devices), **options)
    assert answer is not None and answer.reason == "", answer
    return answer


def aggregators(terms) -> Ledger:
    """The ledger of an aggregator that has opened these terms' round and no other."""
    noise = Mechanism.of(terms.noise, terms.norm2)
    return Ledger(fingerprint(ROOT.public), terms.delta).spend(noise, terms.run, terms.round, "a set")


def test_an_aggregators_epsilon_is_the_helpers_to_the_bit():
    desk, ledger = Desk(), None
    for round in range(1, 6):
        terms = terms_of(round, **SELDOM)
        ledger = aggregators(terms) if ledger is None else ledger.spend(ledger.noise, terms.run, round, "a set")
        answer = opened(desk, terms_of(round, **{**SELDOM, "epsilon": ledger.epsilon}))
        assert answer.epsilon == ledger.epsilon
        kept = desk.disk.state.ledger
        assert kept is not None and kept.epsilon == ledger.epsilon and (kept.times, kept.counted) == (
            ledger.times, ledger.counted,
        )  # fmt: skip


@pytest.mark.parametrize("less", [1e-6, 0.01, 0.1])
def test_terms_that_understate_epsilon_are_refused_in_every_round(less):
    """Also where they never fall, and where an owner's bound has been kept to by what they tell."""
    desk = Desk(least=Least(devices=2, epsilon=100.0))
    for round in (1, 2, 3):
        true = terms_of(round, **DP)
        reason = refused(desk, ask_of(terms_of(round, **{**DP, "epsilon": true.epsilon * (1 - less)})), "epsilon")
        assert f"{true.epsilon:.6g} is spent once round {round} is over" in reason
        opened(desk, true)


def test_a_round_more_under_the_same_epsilon_is_refused():
    desk, first = Desk(), terms_of(1, **DP)
    opened(desk, first)
    refused(desk, ask_of(terms_of(2, **{**DP, "epsilon": first.epsilon})), "epsilon")


def test_rounding_in_what_is_told_refuses_nothing():
    desk = Desk()
    for round in (1, 2):
        opened(desk, terms_of(round, **{**DP, "epsilon": terms_of(round, **DP).epsilon * (1 - 2**-31)}))


def test_a_larger_norm_less_noise_or_a_shorter_separation_cost_more():
    for changes in ({"norm2": 40_000}, {"noise": {**NOISE, "sigma": 200.0}}):
        told = terms_of(1, **DP).epsilon
        refused(Desk(), ask_of(terms_of(1, **{**DP, **changes, "epsilon": told})), "epsilon")
    desk = Desk()
    opened(desk, terms_of(1, **SELDOM))
    opened(desk, terms_of(2, **SELDOM))
    refused(desk, ask_of(terms_of(3, **{**DP, "epsilon": terms_of(3, **SELDOM).epsilon})), "epsilon")


def test_the_owners_epsilon_ends_it_by_what_is_spent_not_by_what_is_told():
    most = terms_of(3, **DP).epsilon
    desk = Desk(least=Least(devices=2, epsilon=most))
    for round in (1, 2, 3):
        opened(desk, terms_of(round, **DP))
    assert "[least] epsilon" in refused(desk, ask_of(terms_of(4, **DP)), "weak")
    refused(desk, ask_of(terms_of(4, **{**DP, "epsilon": most})), "epsilon")


def test_epsilon_at_another_delta_is_refused():
    desk = Desk(least=Least(devices=2, delta=1e-4))
    opened(desk, terms_of(1, **DP))
    assert "counts at a delta of 1e-05" in refused(desk, ask_of(terms_of(2, **{**DP, "delta": 1e-4})), "ledger")
    refused(desk, ask_of(terms_of(2, **{**DP, "delta": 1e-6})), "ledger")
    refused(Desk(), ask_of(terms_of(1, **{**DP, "delta": 0.0, "epsilon": 1.0})), "noise")


def test_a_ledger_of_another_root_is_refused():
    desk = Desk()
    opened(desk, terms_of(1, **DP))
    other = msgspec.structs.replace(desk.disk.state.ledger, root="cd" * 8)
    desk.disk.state = msgspec.structs.replace(desk.disk.state, ledger=other)
    desk.start()
    assert "empty state_dir" in refused(desk, ask_of(terms_of(2, **DP)), "ledger")


def test_the_same_set_again_costs_nothing_and_a_refused_one_neither():
    desk = Desk()
    wrong = msgspec.structs.replace(entry_of(DEVICES[2], terms_of(1, **DP)), signature=bytes(64))
    ask = ask_of(terms_of(1, **DP))
    refused(desk, msgspec.structs.replace(ask, entries=(*ask.entries[:2], wrong)), "signature")
    assert desk.disk.state.ledger is None
    opened(desk, terms_of(1, **DP))
    paid = desk.disk.state.ledger
    assert paid is not None and paid.epsilon == terms_of(1, **DP).epsilon
    desk.start()
    opened(desk, terms_of(1, **DP))
    refused(desk, ask_of(terms_of(1, **DP), DEVICES[1:4]), "second")
    assert desk.disk.state.ledger == paid


def test_what_is_spent_is_durable_with_the_answer_and_not_before():
    """A death before any of the actions: what was spent is on the disk if and only if a part of the answer may have
    left, and the set that is asked for then is opened at the same epsilon."""
    for action in range(1, 9):
        desk, terms = Desk(), terms_of(1, **DP)
        desk.die_at = action
        with contextlib.suppress(Killed):
            desk.ask(ask_of(terms))
        left = [part for part in desk.left if part.round == 1]
        paid = desk.disk.state.ledger
        assert (paid is not None) == (1 in desk.disk.answers) and (paid is not None or not left)
        desk.die_at = None
        desk.start()
        assert opened(desk, terms).epsilon == terms.epsilon


@pytest.mark.parametrize("norm2", [1, 2**62])
@pytest.mark.parametrize("sigma", [1e-12, 2.0**-5, 2.0**24, 1e12])
@pytest.mark.parametrize("delta", [5e-324, 1e-300, 1 - 2**-53])
def test_no_terms_end_the_process(norm2, sigma, delta):
    """The most extreme ones that can be in terms are refused, or opened at what they cost."""
    noise = Noise("independent", sigma)
    for known in (None, Ledger(fingerprint(ROOT.public), delta, 1e12), Ledger(fingerprint(ROOT.public), delta, 1e-9)):
        for told in (1e-12, 1.0, 1e12):
            table = {**msgspec.json.decode(TERMS.raw), "noise": noise, "norm2": norm2, "delta": delta, "epsilon": told}
            terms = decode(Terms, msgspec.json.encode(table), MAX_TERMS)  # whatever else would be refused in them
            with contextlib.suppress(Refusal):
                paid = pay(known, terms, fingerprint(ROOT.public), bytes(32))
                assert paid is not None and paid.epsilon == told
                assert Ledger.of_text(paid.to_text(), paid.root, delta) == paid


def test_rounds_that_are_missing_cost_nothing():
    desk = Desk()
    opened(desk, terms_of(1, **DP))
    opened(desk, terms_of(5, **{**DP, "epsilon": terms_of(2, **DP).epsilon}))


def test_what_is_spent_goes_over_epochs_of_keys_runs_and_restarts():
    desk = Desk()
    opened(desk, terms_of(1, **DP))
    desk.renew(2)
    refused(desk, ask_of(terms_of(2, [keys_of(2)], **{**DP, "epsilon": terms_of(1, **DP).epsilon})), "epsilon")
    opened(desk, terms_of(2, [keys_of(2)], **DP))
    desk.start()
    cert, other = certificate(serial=2, epoch=2), {**DP, "run": "ff" * 8}
    told = terms_of(3, **DP).epsilon
    ask = ask_of(terms_of(1, [keys_of(2)], **{**other, "epsilon": told * 0.999}))
    refused(desk, ask, "epsilon", cert=cert, epoch=2)
    opened(desk, terms_of(1, [keys_of(2)], **{**other, "epsilon": told}), cert=cert, epoch=2)


def test_a_run_that_comes_back_in_a_new_epoch_has_no_noise_in_its_rounds_again():
    """Another run was begun in between, of which nothing was opened: what the ledger knows last is the first one."""
    desk = Desk()
    opened(desk, terms_of(3, **DP))
    cert = certificate(serial=2, epoch=2)
    refused(desk, ask_of(terms_of(1, **{**DP, "run": "ff" * 8}), DEVICES[:1]), "run")
    refused(
        desk, ask_of(terms_of(1, **{**DP, "run": "ff" * 8, "epsilon": 99.0}), DEVICES[:1]), "few", cert=cert, epoch=2
    )
    desk.renew(2)
    cert = certificate(serial=3, epoch=3)
    refused(desk, ask_of(terms_of(3, [keys_of(2)], **{**DP, "epsilon": 99.0})), "old", cert=cert, epoch=3)
    opened(desk, terms_of(4, [keys_of(2)], **{**DP, "epsilon": 99.0}), cert=cert, epoch=3)


def test_correlated_noise_is_accounted_too():
    noise = {"kind": "banded", "sigma": 300.0, "band": 2, "separation": 3, "rounds": 10}
    desk = Desk()
    for round in (1, 2, 4):
        true = terms_of(round, noise=noise, bits=17)
        refused(desk, ask_of(terms_of(round, noise=noise, bits=17, epsilon=true.epsilon * (1 - 1e-6))), "epsilon")
        opened(desk, true)
    assert (
        terms_of(4, noise=noise, bits=17).epsilon
        > terms_of(1, noise=noise, bits=17).epsilon
        > terms_of(1, **DP).epsilon
    )


def test_a_helper_that_joins_later_takes_over_what_was_spent_before():
    desk = Desk()
    opened(desk, terms_of(30, **DP))
    refused(desk, ask_of(terms_of(31, **{**DP, "epsilon": terms_of(30, **DP).epsilon})), "epsilon")
    opened(desk, terms_of(31, **DP))


def test_without_dp_accounting_noise_is_refused_and_sums_without_it_are_opened(monkeypatch):
    from edgefl.privacy import accountant

    ask, plain = ask_of(terms_of(1, **DP)), ask_of(terms_of(1))

    def gone(name):
        raise ImportError(name)

    accountant._library.cache_clear()
    monkeypatch.setattr(accountant, "import_module", gone)
    desk = Desk()
    assert "pip install 'edgefl-toolkit[privacy]'" in refused(desk, ask, "noise")
    answer = desk.ask(plain)
    assert answer is not None and not answer.reason


def test_the_accountant_is_asked_in_the_job_and_never_in_the_main_loop(monkeypatch):
    """It takes two seconds to load, and the helper would answer neither pings nor other asks."""
    desk, ask = Desk(), ask_of(terms_of(noise=NOISE, bits=16))
    blob = blob_of(ask)

    def library():
        raise AssertionError("in the main loop")

    with monkeypatch.context() as patch:
        patch.setattr("edgefl.privacy.accountant._library", library)
        actions = [action for part in parts_of(blob, 1) for action in desk.machine.step(part, 0.0)]
    (job,) = (action.job for action in actions if isinstance(action, Open))
    sums = job.run(desk.draw)
    assert isinstance(sums, Sums) and sums.ledger is not None and sums.ledger.epsilon > 0
    desk.feed(JobDone(job, sums))
    assert desk.disk.state.ledger == sums.ledger, "and it is durable with the answer"
