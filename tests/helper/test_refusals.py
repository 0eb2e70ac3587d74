"""Terms, rounds and certificates that a helper opens nothing under: each with its reason, in its log and in its answer,
and the round stays as it was."""

from __future__ import annotations

import msgspec
import pytest
from helped import (
    DEVICES,
    LAST,
    Desk,
    ask_of,
    blob_of,
    certificate,
    keys_of,
    parts_of,
    refused,
    terms_of,
)

from edgefl.helper.least import Least
from edgefl.helper.refusal import REASONS
from edgefl.machine import WallTime

NOISE = {"kind": "independent", "sigma": 30.0, "separation": 4}
DP = {"noise": NOISE, "bits": 16}
EPSILON = terms_of(**DP).epsilon
replace = msgspec.structs.replace


@pytest.mark.parametrize(
    ("least", "changes", "says"),
    [
        ({"weight": 1}, {"weights": 2}, "may weigh 2"),
        ({"clip": 1.0}, {"clip": 1.01}, "clipped at 1.01"),
        ({"noise": 0.2}, {}, "noise is 0 of"),
        ({"noise": 0.22}, DP, "noise is 0.2121 of"),
        ({"separation": 5}, DP, "back after 4 rounds"),
        ({"epsilon": EPSILON * 0.99}, DP, "epsilon would be 32.3"),
        ({"delta": 0.9e-5}, DP, "at a delta of 1e-05"),
        ({"epsilon": 8.0}, {}, "a sum without noise has no epsilon"),
        ({"answer_mb": 0.02}, {"params": 20_000, "coordinates": 20_000, "norm2": 2**40}, "answer would have"),
        ({"memory_mb": 0.1}, {"params": 30_000, "coordinates": 30_000, "norm2": 2**40}, "vectors would take 0.1 MB"),
        (
            {"memory_mb": 1000.0},
            {
                "params": 2**20,
                "coordinates": 2**20,
                "norm2": 2**60,
                "bits": 24,
                "epsilon": 1.0,
                "delta": 1e-5,
                "noise": {"kind": "banded", "sigma": 30.0, "band": 256, "separation": 256, "rounds": 300},
            },
            "vectors would take 2151.7 MB",
        ),
    ],
)
def test_terms_weaker_than_the_owner_has_pinned(least, changes, says):
    assert says in refused(Desk(least=Least(devices=2, **least)), ask_of(terms_of(**changes), DEVICES[:2]), "weak")


@pytest.mark.parametrize(
    "least",
    [
        {"weight": 1, "clip": 1.0, "noise": 0.212, "separation": 4, "answer_mb": 0.001},
        {"epsilon": EPSILON, "delta": 1e-5},
    ],
)
def test_terms_as_strong_as_pinned_are_opened(least):
    answer = Desk(least=Least(devices=2, **least)).ask(ask_of(terms_of(**DP), DEVICES[:2]))
    assert answer is not None and not answer.reason


def test_terms_that_name_another_key_epoch_or_helper():
    desk = Desk()
    desk.renew(2)
    reason = refused(desk, ask_of(terms_of(keys=[keys_of(1)])), "helper")
    assert "of epoch 1; ours are of epoch 2" in reason
    assert "none of ours" in refused(Desk(), ask_of(terms_of(keys=[keys_of(name="south")])), "helper")
    mixed = keys_of(1)._replace(box_public=keys_of(2).box_public)
    refused(Desk(), ask_of(terms_of(keys=[mixed])), "helper")
    mixed = keys_of(1)._replace(signing=keys_of(2).signing)
    refused(Desk(), ask_of(terms_of(keys=[mixed])), "helper")


def test_another_federation():
    refused(Desk(), ask_of(terms_of(federation="lake")), "terms")


def test_terms_that_can_not_be():
    ask = ask_of(terms_of())
    for text in ("{}", ask.terms.replace('"bits":12', '"bits":9')):
        answer_to = replace(ask, terms=text)
        desk = Desk()
        raw = desk.feed(*parts_of(blob_of(answer_to), 1))
        assert raw is not None and b"terms: " in raw and desk.machine.refused == 1
        assert any("round 1 refused: terms" in line for line in desk.log)


def test_a_second_run_in_one_epoch_of_the_aggregators_certificate():
    desk = Desk()
    desk.ask(ask_of(terms_of(5)))
    other = "ff" * 8
    assert "edgefl keys epoch" in refused(desk, ask_of(terms_of(6, run=other)), "run")
    refused(desk, ask_of(terms_of(5, run=other)), "run")
    cert = certificate(serial=2, epoch=2)
    answer = desk.ask(ask_of(terms_of(1, run=other)), cert=cert, epoch=2)
    assert answer is not None and not answer.reason, "the next epoch has a run of its own, from round 1 on"
    refused(desk, ask_of(terms_of(6)), "certificate")
    refused(desk, ask_of(terms_of(6)), "run", cert=cert, epoch=2)


def test_a_certificate_that_was_replaced_or_is_out_of_its_dates():
    desk = Desk()
    desk.ask(ask_of(terms_of(1)), cert=certificate(serial=7))
    assert "number 7 has been seen" in refused(desk, ask_of(terms_of(2)), "certificate", cert=certificate(serial=6))
    desk.start()
    refused(desk, ask_of(terms_of(2)), "certificate", cert=certificate(serial=6))
    ended = certificate(serial=7, not_after=1000)
    answer = desk.ask(ask_of(terms_of(2)), cert=ended)
    assert answer is not None and not answer.reason, "without a clock, nothing ends"
    desk.feed(WallTime(2000.0))
    refused(desk, ask_of(terms_of(3)), "certificate", cert=ended)
    refused(desk, ask_of(terms_of(3)), "certificate", cert=certificate(serial=7, not_before=LAST - 1))


def test_old_rounds_whose_answers_are_gone():
    desk = Desk()
    desk.ask(ask_of(terms_of(9)))
    assert "round 9 was opened" in refused(desk, ask_of(terms_of(8)), "old")


def test_epsilon_never_falls():
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **{**DP, "epsilon": 90.0})))
    assert "90 was spent" in refused(desk, ask_of(terms_of(2, **{**DP, "epsilon": 89.9})), "epsilon")
    refused(desk, ask_of(terms_of(2)), "epsilon")
    desk.renew(2)
    refused(desk, ask_of(terms_of(2, keys=[keys_of(2)])), "epsilon")
    cert = certificate(serial=2, epoch=2)
    other = terms_of(1, keys=[keys_of(2)], run="ff" * 8)
    refused(desk, ask_of(other), "epsilon", cert=cert, epoch=2)


@pytest.mark.parametrize("seen", [{"seen_round": 3}, {"seen_epsilon": 80.0}])
def test_a_helper_that_was_restored_from_a_backup_opens_nothing_before_a_new_epoch(seen):
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **DP)))
    backup = desk.disk.copy()
    desk.ask(ask_of(terms_of(2, **{**DP, "epsilon": 70.0})))
    desk.ask(ask_of(terms_of(3, **{**DP, "epsilon": 80.0})))
    desk.disk = backup
    desk.start()
    ask = ask_of(terms_of(4, **{**DP, "epsilon": 90.0}))
    assert "later answers of ours" in refused(desk, replace(ask, **seen), "restored")
    desk.start()
    refused(desk, ask, "restored")  # also of an aggregator that tells of nothing now
    desk.renew(2)
    refused(desk, ask, "helper")
    answer = desk.ask(ask_of(terms_of(4, keys=[keys_of(2)], **{**DP, "epsilon": 90.0})))
    assert answer is not None and not answer.reason


def test_what_is_seen_and_known_stops_nothing():
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **DP)))
    answer = desk.ask(ask_of(terms_of(2, **DP), seen_round=1, seen_epsilon=EPSILON))
    assert answer is not None and not answer.reason


def test_an_answer_that_can_not_be_read_any_more():
    desk, ask = Desk(), ask_of(terms_of())
    desk.ask(ask)
    desk.disk.answers.clear()
    refused(desk, ask, "lost")


def test_correlated_noise_of_several_groups():
    noise = {"kind": "banded", "sigma": 30.0, "band": 2, "separation": 4, "rounds": 10}
    assert "of one group" in refused(Desk(), ask_of(terms_of(**{**DP, "noise": noise, "groups": 2})), "noise")


def test_correlated_noise_of_a_round_that_nobody_has_accounted_for():
    noise = {"kind": "banded", "sigma": 30.0, "band": 2, "separation": 4, "rounds": 3}
    desk = Desk()
    for round in (1, 3):
        answer = desk.ask(ask_of(terms_of(round, **{**DP, "noise": noise})))
        assert answer is not None and not answer.reason
    assert "accounted for" in refused(desk, ask_of(terms_of(4, **{**DP, "noise": noise})), "noise")


def test_every_reason_is_one_that_a_test_has_seen():
    """A reason that nothing gives would be a promise that nobody keeps."""
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [code for code in REASONS if f'"{code}"' not in text and f'"{code}: ' not in text] == []
