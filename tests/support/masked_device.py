"""A device that its owner lets take part in masked rounds only, and what it is announced."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from keyed import ROOT, TODAY, sealed, signed_round
from machines import STATUS, TOPICS, feed, last, make_session, model_parts, of, serve
from masked_rounds import MANIFEST, device_key, terms_maker

from edgefl.device.events import StartTraining
from edgefl.device.owner.policy import OPEN, OwnersWord, Policy
from edgefl.device.seen import Seen
from edgefl.device.trust import Keys
from edgefl.machine import Connected, Note, WallTime
from edgefl.protocol.messages import Status

MASKED = replace(OPEN, masked=True)


def masked_round(number=1, *, maker=None, certificates=None, version=0, attempt=1, change=lambda terms: terms):
    """A round with its terms, as the signer announces it."""
    round = signed_round(number, version, attempt, manifest=MANIFEST)
    maker = maker or terms_maker()
    terms = maker.terms(round=number, version=version, model_sha256=round.model_sha256, manifest=MANIFEST.id)
    return msgspec.structs.replace(
        round, requires=["masked"], terms=change(terms).text,
        helpers=maker.certificates if certificates is None else certificates,
    )  # fmt: skip


def device(policy: Policy = MASKED, seen: Seen | None = None, **options):
    keys = Keys(ROOT.public, device_key("a"), seen)
    session = make_session("a", keys=keys, owner=OwnersWord(policy), **options)
    out = feed(session, WallTime(TODAY), Connected(boot=7))
    return session, out + feed(session, sealed(TOPICS.manifest, MANIFEST))


def hear(session, round, parts=None) -> list:
    return serve(session, feed(session, sealed(TOPICS.round, round)), parts or model_parts(round.version))


def refused(round, why: str, policy: Policy = MASKED, seen: Seen | None = None, code: str = ""):
    """The device does not train, and says why. Without a `code`, it is the owner's "policy" if the owner refuses."""
    session, _ = device(policy, seen)
    out = hear(session, round)
    status = last(out, Status, STATUS)
    assert not of(out, StartTraining)
    code = code or ("policy" if "by this device's owner" in status.reason else "signer")
    assert (status.state, status.code) == ("trouble", code) and why in status.reason, status
    assert any(note.level == ("info" if code == "rests" else "error") and why in note.text for note in of(out, Note))
