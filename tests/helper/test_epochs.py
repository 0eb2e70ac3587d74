"""Epochs, of the aggregator's certificate and of the helper's keys: what may be opened in the next one."""

from __future__ import annotations

from helped import DEVICES, Desk, ask_of, blob_of, certificate, keys_of, parts_of, terms_of

from edgefl.masking.exchange import read_answer


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


def test_the_state_is_bounded_whatever_runs_and_epochs_the_root_begins(monkeypatch):
    """A run that was dropped from it could be opened again, so one run too many is refused until the keys change."""
    monkeypatch.setattr("edgefl.helper.state.MOST_RUNS", 20)
    desk, longest = Desk(), 0
    for epoch in range(1, 60):
        asks = {"cert": certificate(serial=epoch, epoch=epoch), "epoch": epoch}
        ask = ask_of(terms_of(2**31, run=f"{epoch:016x}"))
        if epoch <= 20:
            answer = desk.ask(ask, **asks)
            assert answer is not None and not answer.reason
        else:
            assert "`edgefl keys epoch DIR helper-north`" in refused(desk, ask, "run", **asks)
        longest = max(longest, len(desk.disk.state.to_bytes()))
    assert longest < 500 + 20 * 20
    refused(desk, ask_of(terms_of(2, run=f"{3:016x}")), "run", **asks)
    going_on = desk.ask(ask_of(terms_of(2**31 + 1, run=f"{20:016x}")), **asks)
    assert going_on is not None and not going_on.reason, "the newest run goes on"
    desk.renew(2)
    answer = desk.ask(ask_of(terms_of(1, [keys_of(2)], run="ab" * 8)), cert=certificate(serial=99, epoch=99), epoch=99)
    assert answer is not None and not answer.reason and desk.disk.state.ended == (f"{20:016x}",)


def test_a_run_that_had_no_room_is_opened_once_the_helpers_keys_have_changed(monkeypatch):
    """As the refusal says: no further epoch of the aggregator's certificate is needed."""
    monkeypatch.setattr("edgefl.helper.state.MOST_RUNS", 3)
    desk, last = Desk(), {"cert": certificate(serial=4, epoch=4), "epoch": 4}
    for epoch in range(1, 4):
        cert = certificate(serial=epoch, epoch=epoch)
        answer = desk.ask(ask_of(terms_of(1, run=f"{epoch:016x}")), cert=cert, epoch=epoch)
        assert answer is not None and not answer.reason
    assert "`edgefl keys epoch DIR helper-north`" in refused(desk, ask_of(terms_of(1, run="ab" * 8)), "run", **last)
    third = {"cert": certificate(serial=3, epoch=3), "epoch": 3}
    refused(desk, ask_of(terms_of(2, run=f"{3:016x}")), "certificate", **third)
    desk.renew(2)
    desk.start()
    answer = desk.ask(ask_of(terms_of(1, [keys_of(2)], run="ab" * 8)), **last)
    assert answer is not None and not answer.reason
    refused(desk, ask_of(terms_of(2, [keys_of(2)], run="cd" * 8)), "run", **last)


def test_an_ask_under_the_keys_before_says_nothing_of_the_new_ones():
    """After a loss a helper starts with new keys and an empty folder, while it is still asked for a round of before: it
    would hold itself for restored, and ask for yet another epoch."""
    desk = Desk(keys=keys_of(2))
    before = terms_of(57, [keys_of(1)])
    desk.feed(*parts_of(blob_of(ask_of(before, seen_round=56, seen_epsilon=1.0)), 57, 56))
    (raw,) = desk.sent
    assert read_answer(raw, "north", desk.keys.signing.public, before).reason.startswith("helper: their keys are of")
    desk.start()
    answer = desk.ask(ask_of(terms_of(58, [keys_of(2)])))
    assert answer is not None and not answer.reason
    assert "restored" in refused(desk, ask_of(terms_of(60, [keys_of(2)]), seen_round=59), "restored")


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
