"""The two state machines with keys: a root, a signer, devices a to c, and messages as each side gets them."""

from __future__ import annotations

import msgspec
from machines import (
    FEDERATION,
    MANIFEST,
    PARAMS,
    RUN,
    TOPICS,
    feed,
    make_coordinator,
    make_round,
    make_session,
    make_update,
    model_parts,
    of,
    serve,
)

from edgefl.coordinator.events import SignerRead
from edgefl.device.events import SaveSeen, StartTraining
from edgefl.device.seen import Seen
from edgefl.device.trust import Keys
from edgefl.machine import Connected, Received
from edgefl.protocol import signed_update
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.messages import encode
from edgefl.protocol.signed_update import Context
from edgefl.trust.certificate import SignerCertificate, purpose_of
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.roster import Member, Roster
from edgefl.trust.seal import read_seal, seal

ROOT, SIGNER, THIEF = SigningKey(b"r" * 32), SigningKey(b"s" * 32), SigningKey(b"t" * 32)
DEVICE_KEYS = {name: SigningKey(name.encode() * 32) for name in "abc"}
LAST = 4_000_000_000  # seconds after the start of 1970
TODAY = 1_800_000_000


def certificate(key=SIGNER, *, serial=1, epoch=1, root=ROOT, not_before=0, not_after=LAST, federation=FEDERATION):
    """The sealed signer.json."""
    return SignerCertificate.of(
        key.public, federation=federation, serial=serial, epoch=epoch, not_before=not_before, not_after=not_after
    ).seal(root)


def sealed(topic, message, key=SIGNER, cert=None, epoch=None) -> Received:
    """A message to a device, as the signer publishes it, or somebody with another key; an inbox has no certificate.
    `epoch` is that in which it was signed; None: its certificate's."""
    payload = message if isinstance(message, bytes) else encode(message)
    cert = b"" if topic.endswith("/inbox") else certificate() if cert is None else cert
    if epoch is None:
        epoch = msgspec.json.decode(read_seal(cert).payload)["epoch"] if cert else 1
    return Received(topic, seal(payload, purpose_of(topic, epoch), key, cert))


def manifest(key=SIGNER, cert=None, message=MANIFEST, epoch=None) -> Received:
    return sealed(TOPICS.manifest, message, key, cert, epoch)


def chain_of(version: int, history="h") -> str:
    return "" if version < 0 else (history + f"{version:x}").encode().hex().ljust(64, "0")


def signed_round(*numbers, history="h", issued=TODAY, expires=0, run=RUN, **changes):
    """A round in a history of models: all versions of one history have chains that follow from each other."""
    message = make_round(*numbers, **changes)
    version = message.version
    return msgspec.structs.replace(
        message, run=run, previous=chain_of(version - 1, history), chain=chain_of(version, history), issued=issued,
        expires=expires,
    )  # fmt: skip


def round_of(*numbers, key=SIGNER, cert=None, epoch=None, **changes) -> Received:
    return sealed(TOPICS.round, signed_round(*numbers, **changes), key, cert, epoch)


def receipt_of(outcome="counted", round=1, attempt=1, run=RUN, key=SIGNER, device="a", epoch=1) -> Received:
    return sealed(TOPICS.inbox(device), Receipt(round, attempt, outcome, run=run), key, epoch=epoch)


def keyed_session(device="a", seen=None, **options):
    return make_session(device, keys=Keys(ROOT.public, DEVICE_KEYS[device], seen), **options)


def joined(seen=None, **options):
    """A device that is connected and has the manifest."""
    session = keyed_session(seen=seen, **options)
    feed(session, Connected(boot=7))
    return session, feed(session, manifest())


def train(session, *messages, now=0.0, version=0, params=PARAMS):
    """What the device does for a round whose model is on the broker."""
    return serve(session, feed(session, *messages, now=now), model_parts(version, params), now=now)


def seen_in(actions) -> Seen:
    return of(actions, SaveSeen)[-1].seen


def starts(actions) -> int:
    return len(of(actions, StartTraining))


def roster(*names, serial=1, revoked=()) -> Roster:
    members = {name: Member.of(DEVICE_KEYS[name].public) for name in names}
    members |= {name: msgspec.structs.replace(members[name], revoked=True) for name in revoked}
    return Roster(FEDERATION, serial, members)


def keyed_coordinator(*names, start=None, **options):
    keys = SignerRead(SIGNER, certificate(), 1), roster(*(names or "abc"))
    return make_coordinator(start={"keys": keys, **(start or {})}, **options)


def signed_blob(
    device="a", blob=None, *, round=1, version=0, key=None, run=RUN, codec=1, federation=FEDERATION, epoch=1
):
    """An update with its device's signature."""
    context = Context(federation, epoch, run, round, version, device, codec)
    return signed_update.sign(make_update() if blob is None else blob, context, key or DEVICE_KEYS[device])
