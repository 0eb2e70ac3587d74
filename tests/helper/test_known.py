"""An ask that shows no device: the helper tells what it knows, opens nothing, and stays as it was."""

from __future__ import annotations

import msgspec
import pytest
from helped import DEVICES, RUN, SIGNER, THIEF, Desk, ask_of, blob_of, certificate, keys_of, parts_of, refused, terms_of

from edgefl.helper.events import Open
from edgefl.machine import Note, WallTime
from edgefl.masking.exchange import Answer

NOISE = {"kind": "independent", "sigma": 30.0, "separation": 4}
DP = {"noise": NOISE, "bits": 16}
replace = msgspec.structs.replace


def question(round: int = 1, **changes):
    return ask_of(terms_of(round, **changes), ())


def known(desk: Desk, ask, **options) -> Answer:
    """What it tells; nothing has changed by that, and no warning is in its log."""
    before, refusals, writes = desk.machine.state, desk.machine.refused, desk.disk.writes
    answer = desk.ask(ask, **options)
    assert answer is not None and answer.reason.startswith("known: ") and answer.groups == answer.unopened == ()
    assert answer.set_digest == ask.set_digest and answer.roster == 1
    assert (desk.machine.state, desk.machine.refused, desk.disk.writes) == (before, refusals, writes)
    assert "asked what is known" in desk.log[-1] and not any("refused" in line for line in desk.log)
    return answer


def test_a_new_helper_knows_of_nothing():
    answer = known(Desk(), question(**DP))
    assert (answer.round, answer.epsilon) == (0, 0.0)


def test_it_tells_its_newest_round_of_this_run_and_all_that_was_spent():
    desk = Desk()
    desk.ask(ask_of(terms_of(9, **{**DP, "epsilon": 90.0})))
    for round in (1, 9, 10):
        answer = known(desk, question(round, **DP))
        assert (answer.round, answer.epsilon) == (9, 90.0), "also of a round that it has opened"
    desk.start()
    assert known(desk, question(**DP)).epsilon == 90.0
    opened = desk.ask(ask_of(terms_of(10, **{**DP, "epsilon": 95.0})))
    assert opened is not None and not opened.reason


def test_of_another_run_no_round_is_told_and_the_run_does_not_turn():
    desk = Desk()
    desk.ask(ask_of(terms_of(9, **{**DP, "epsilon": 90.0})))
    other = question(run="ff" * 8, **DP)
    for options in ({}, {"cert": certificate(serial=2, epoch=2), "epoch": 2}):
        answer = known(desk, other, **options)
        assert (answer.round, answer.epsilon) == (0, 90.0)
    assert desk.machine.state.run == RUN and desk.machine.state.signer_epoch == 1


def test_one_that_was_restored_tells_what_it_knows_and_takes_no_note_of_what_was_seen():
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **DP)))
    answer = known(desk, replace(question(4, **DP), seen_round=3, seen_epsilon=80.0))
    assert answer.round == 1 and not desk.machine.state.restored


def test_the_checks_are_those_of_any_ask():
    desk = Desk()
    desk.ask(ask_of(terms_of(1)), cert=certificate(serial=7))
    refused(desk, question(2), "certificate", cert=certificate(serial=6))
    refused(desk, question(2, federation="lake"), "terms", cert=certificate(serial=7))
    refused(desk, question(2, keys=[keys_of(2)]), "helper", cert=certificate(serial=7))
    desk.feed(WallTime(2000.0))
    refused(desk, question(2), "certificate", cert=certificate(serial=7, not_after=1000))
    desk.ask(ask_of(terms_of(1, run="ff" * 8)), cert=certificate(serial=8, epoch=2), epoch=2)
    refused(desk, question(2), "run", cert=certificate(serial=8, epoch=2), epoch=2)


@pytest.mark.parametrize("options", [{"key": THIEF}, {"name": "south"}, {"key": THIEF, "cert": certificate(SIGNER)}])
def test_one_that_no_certified_aggregator_has_signed_for_this_helper_is_dropped(options):
    desk = Desk()
    cert = options.pop("cert", certificate(THIEF, root=THIEF) if "key" in options else certificate())
    blob = blob_of(question(), cert=cert, **options)
    assert desk.feed(*parts_of(blob, 1)) is None and "dropped" in desk.log[-1]


def test_while_a_set_is_being_opened_it_waits_for_that():
    """What it tells would lack that round."""
    desk = Desk()
    terms = terms_of(3, **DP)
    asks = [action for part in parts_of(blob_of(ask_of(terms, DEVICES[:3])), 3, 2) for action in _step(desk, part)]
    (opening,) = [action for action in asks if isinstance(action, Open)]
    (note,) = [action for part in parts_of(blob_of(question(3, **DP)), 3, 2) for action in _step(desk, part)]
    assert isinstance(note, Note) and "comes again" in note.text
    desk._carry_out([opening])
    assert known(desk, question(3, **DP)).round == 3


def _step(desk: Desk, event):
    return desk.machine.step(event, 0.0)
