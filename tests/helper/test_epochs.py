"""Epochs, of the aggregator's certificate and of the helper's keys: what may be opened in the next one."""

from __future__ import annotations

from helped import DEVICES, Desk, ask_of, certificate, keys_of, terms_of


def refused(desk: Desk, ask, code: str, **options) -> str:
    answer = desk.ask(ask, **options)
    assert answer is not None and answer.reason.startswith(f"{code}: "), answer
    return answer.reason


def test_i34_a_new_epoch_of_the_aggregators_certificate_opens_no_round_of_a_run_again():
    """It is routine after a restored backup and a stolen key; the vectors of rounds before are with the aggregator."""
    desk = Desk()
    desk.ask(ask_of(terms_of(5)))
    later = {"cert": certificate(serial=2, epoch=2), "epoch": 2}
    assert "opened for another set" in refused(desk, ask_of(terms_of(5), DEVICES[1:3]), "second", **later)
    refused(desk, ask_of(terms_of(4)), "old", **later)
    answer = desk.ask(ask_of(terms_of(6), seen_round=5), **later)
    assert answer is not None and not answer.reason


def test_i34_a_run_that_another_one_followed_is_over():
    desk, other = Desk(), "ff" * 8
    desk.ask(ask_of(terms_of(5)))
    desk.ask(ask_of(terms_of(1, run=other)), cert=certificate(serial=2, epoch=2), epoch=2)
    third = {"cert": certificate(serial=3, epoch=3), "epoch": 3}
    desk.start()
    assert "is over" in refused(desk, ask_of(terms_of(5), DEVICES[1:3]), "run", **third)
    answer = desk.ask(ask_of(terms_of(2, run=other)), **third)
    assert answer is not None and not answer.reason, "the newest run goes on"
    desk.renew(2)
    fourth = {"cert": certificate(serial=4, epoch=4), "epoch": 4}
    refused(desk, ask_of(terms_of(5), DEVICES[1:3]), "helper", **fourth)
    answer = desk.ask(ask_of(terms_of(5, keys=[keys_of(2)])), **fourth)
    assert answer is not None and not answer.reason, "what was sealed to the keys before opens no more"
