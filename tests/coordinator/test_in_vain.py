"""Rounds with noise whose sums a helper refuses, one after the other: each costs epsilon, so they become rare."""

from __future__ import annotations

import msgspec
import pytest
from keyed import ROOT, SIGNER, certificate
from machines import commit_of, feed, of, status
from masked_rounds import (
    DEVICES,
    FIVE,
    PRIVACY,
    answer_of,
    asked,
    helper_keys,
    make_helper,
    make_masked,
    masked_parts,
    nothing_known,
    party,
    report,
    roster,
    round_in,
    terms_maker,
)

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import HelpersRead, RosterRead, SignerRead
from edgefl.coordinator.masked.in_vain import LONGEST_S
from edgefl.machine import Connected, Note, Tick
from edgefl.privacy.ledger import Ledger
from edgefl.protocol.terms import Terms
from edgefl.trust.ed25519 import fingerprint

NOISY = msgspec.structs.replace(PRIVACY, noise="independent", sigma=1.0, bits=24)


class Refused:
    """A federation whose helper wants more devices in a sum than there are. It has had so many rounds."""

    def __init__(self, rounds: int, privacy=NOISY) -> None:
        self.now = 0.0
        masked = terms_maker(privacy, ledger=Ledger(fingerprint(ROOT.public), NOISY.delta))
        self.coordinator: RoundCoordinator = make_masked(start={"watched": True, "masked": masked})
        self.out = feed(self.coordinator, *map(status, FIVE), Connected())
        if privacy.noise != "none":
            self.out = nothing_known(self.coordinator)
        self.opened_at: list[float] = []
        for _ in range(rounds):
            self.round()

    def round(self, helper=None) -> list:
        """The next round, as soon as it opens; what came of it."""
        while self.coordinator.phase == "waiting":
            assert self.coordinator.wake_at is not None
            self.now = max(self.now, self.coordinator.wake_at)
            self.out = feed(self.coordinator, Tick(), now=self.now)
        self.opened_at.append(self.now)
        out = report(self.coordinator, self.out, self.now)
        self.out = feed(self.coordinator, *answer_of(helper or make_helper(least=6), asked(out)), now=self.now)
        return self.out


def test_the_pause_after_each_round_in_vain_is_twice_as_long():
    """A budget lasts for days, not for a minute, and the operator is told what to do."""
    refused = Refused(2)
    (text,) = (note.text for note in of(refused.out, Note) if "abandoned" in note.text)
    first = PRIVACY.helper_s
    assert text.endswith(f"is spent, so the next one waits {first:g} s, or until the aggregator is started again")
    refused = Refused(13)
    pauses = [after - before for before, after in zip(refused.opened_at, refused.opened_at[1:], strict=False)]
    assert pauses == [0.0, *(min(LONGEST_S, first * 2**k) for k in range(11))] and pauses[-1] == LONGEST_S
    (text,) = (text for text in refused.coordinator.summary(refused.now).advice if "in a row" in text)
    assert "13 rounds" in text and "few:" in text and "start the aggregator again" in text


def test_a_sum_that_is_opened_ends_it():
    refused = Refused(4)
    assert commit_of(refused.round(make_helper())).record.state == "committed"
    assert refused.coordinator.phase == "open" and refused.coordinator.summary(refused.now).advice == []
    refused.round()
    assert refused.coordinator.phase == "open", "the first in vain costs no pause"


@pytest.mark.parametrize(
    "event",
    [
        RosterRead(roster()),
        SignerRead(SIGNER, certificate(serial=2, epoch=2), 2),
        HelpersRead((party(helper_keys(epoch=2)),), ("a certificate",)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_an_operator_does_about_it_ends_the_pause(event):
    refused = Refused(4)
    assert refused.coordinator.phase == "waiting"
    out = feed(refused.coordinator, event, now=refused.now + 1.0)
    assert refused.coordinator.phase == "open" or asked(out), "or helpers are asked first what they know"


def test_without_noise_a_refused_sum_costs_nothing_and_no_round_waits():
    refused = Refused(6, PRIVACY)
    assert refused.coordinator.phase == "open" and set(refused.opened_at) == {0.0}


def test_a_set_of_which_no_group_could_be_opened_is_not_asked_for_and_costs_nothing():
    """Helpers would refuse it: each group is a sum of its own, of as many devices as any sum."""
    privacy = msgspec.structs.replace(NOISY, groups=2, least=2)
    ledger = Ledger(fingerprint(ROOT.public), NOISY.delta)
    coordinator = make_masked(start={"masked": terms_maker(privacy, ledger=ledger)}, min_reports=2)
    out = feed(coordinator, *map(status, DEVICES), Connected()) + nothing_known(coordinator)
    terms = Terms.read(round_in(out).terms)
    apart = [min(device for device in DEVICES if terms.group_of(device) == group) for group in range(2)]
    out = [action for device in apart for action in feed(coordinator, *masked_parts(terms, device), now=1.0)]
    gone = [feed(coordinator, status(device, "lost"), now=2.0) for device in DEVICES if device not in apart]
    record = commit_of(gone[-1]).record
    assert (record.state, record.devices) == ("abandoned", sorted(apart))
    assert record.why.startswith("no group has the 2 devices that a sum needs; lower [privacy] groups: 2 of 2 reports")
    assert not asked(out + gone[-1]) and coordinator.masked.ledger.epsilon == 0
