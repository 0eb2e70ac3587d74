"""Coordinators that ask helpers what they know before the first noisy round, and such helpers."""

from __future__ import annotations

import msgspec
from keyed import ROOT, SIGNER, certificate
from machines import TOPICS, feed, of, status
from masked_rounds import (
    FIVE,
    PRIVACY,
    RUN,
    make_helper,
    make_masked,
    roster,
    terms_maker,
)

from edgefl.coordinator.events import SignerRead
from edgefl.helper.state import State
from edgefl.machine import Connected, Note, Publish
from edgefl.privacy.ledger import Ledger
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


def opened_by(coordinator, out) -> bool:
    """Whether a round was opened."""
    return coordinator.phase == "open" and bool(of(out, Publish, TOPICS.round))


def warnings(out) -> list[str]:
    return [note.text for note in of(out, Note) if note.level in ("warning", "error")]
