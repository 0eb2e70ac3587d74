"""A coordinator whose rounds are masked, twelve devices and helpers, by hand: their keys, and their messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache

import msgspec
import numpy as np
from keyed import ROOT, SIGNER, certificate
from machines import (
    FEDERATION,
    PARAMS,
    RUN,
    TOPICS,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    of,
    status,
    update_parts,
)

from edgefl import codecs, strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import SaveAsk, SignerRead
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.core.params import params_to_bytes
from edgefl.helper.events import Find, Found, JobDone, Keys, Open, SaveOpened
from edgefl.helper.helper import Helper
from edgefl.helper.least import Least
from edgefl.helper.noise import Drawn
from edgefl.helper.state import State
from edgefl.machine import Connected, Note, Publish, Received
from edgefl.masking import sealed
from edgefl.masking.exchange import Answer
from edgefl.masking.update import mask
from edgefl.masking.vector import mean
from edgefl.protocol import signed_update
from edgefl.protocol.envelope import Kind
from edgefl.protocol.inbox import Inbox
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.signed_update import Context
from edgefl.protocol.terms import Party, Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import PrivacySettings
from edgefl.strategies import Update
from edgefl.trust.ed25519 import SigningKey, to_text
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.roster import Member, Roster

DEVICES = tuple("abcdefghijkl")
FIVE = DEVICES[:5]  # that report, where no test says who
MOST = len(DEVICES)
MANIFEST = make_manifest()
PRIVACY = PrivacySettings(masked=True, helpers="north", least=3, share=0.1, bits=12, helper_s=40.0)


@cache
def device_key(device: str) -> SigningKey:
    return SigningKey(device.encode() * 32)


@cache
def helper_keys(name: str = "north", *, epoch: int = 1, what: str = "") -> Keys:
    seed = hashlib.sha256(f"{name} {epoch} {what}".encode()).digest()
    return Keys(name, FEDERATION, epoch, ROOT.public, *sealed.new_box_key(seed), SigningKey(seed))


def helper_certificate(keys: Keys, *, serial: int | None = None, root: SigningKey = ROOT, **times: int) -> str:
    dates = {"not_before": 0, "not_after": 2**40} | times
    return HelperCertificate.of(
        keys.name, keys.box_public, keys.signing.public, federation=FEDERATION, epoch=keys.epoch,
        serial=keys.epoch if serial is None else serial, **dates,
    ).seal(root).decode()  # fmt: skip


def party(keys: Keys) -> Party:
    return Party(keys.name, keys.epoch, to_text(keys.box_public), to_text(keys.signing.public))


def roster(devices: Sequence[str] = DEVICES, *, revoked: Sequence[str] = ()) -> Roster:
    members = {name: Member.of(device_key(name).public) for name in devices}
    members |= {name: msgspec.structs.replace(members[name], revoked=True) for name in revoked}
    return Roster(FEDERATION, 1, members)


def terms_maker(privacy: PrivacySettings = PRIVACY, keys: Sequence[Keys] = (), **options) -> MaskedTerms:
    keys = keys or [helper_keys(name) for name in privacy.helper_names]
    options = {"most": len(DEVICES), "rounds": 0} | options
    certificates = [helper_certificate(each) for each in keys]
    return MaskedTerms(privacy, MANIFEST, helpers=[party(each) for each in keys], certificates=certificates, **options)


def make_masked(
    privacy: PrivacySettings = PRIVACY, *, start=None, most=MOST, manifest=MANIFEST, **config
) -> RoundCoordinator:
    keys = SignerRead(SIGNER, certificate(), 1), roster()
    start = {"keys": keys, "masked": terms_maker(privacy, most=most), **(start or {})}
    return make_coordinator(manifest=manifest, start=start, **{"min_reports": privacy.least} | config)


def open_masked(*devices: str, now: float = 0.0, **options) -> tuple[RoundCoordinator, Terms]:
    """A coordinator in a masked round that these devices are asked in, and its terms."""
    coordinator = make_masked(**options)
    out = feed(coordinator, *map(status, devices or DEVICES), Connected(), now=now)
    out += nothing_known(coordinator, now=now)
    return coordinator, Terms.read(round_in(out).terms)


def round_in(actions) -> Round:
    found = of(actions, Publish, TOPICS.round)
    return decode(Round, found[-1].payload.partition(b"\n")[0], RETAINED_LIMIT)


_VECTORS: dict[tuple[str, str], np.ndarray] = {}


def vector(terms: Terms, device: str) -> np.ndarray:
    """(L,) int32, what this device sends: anything within the reach."""
    if (terms.text, device) not in _VECTORS:
        rng = np.random.default_rng([ord(letter) for letter in device])
        q = _VECTORS[terms.text, device] = np.ones(terms.length, np.int32)
        q[: terms.coordinates] = rng.integers(-terms.reach, terms.reach + 1, terms.coordinates)
        q[terms.at_weight] = rng.integers(1, terms.weights + 1)
    return _VECTORS[terms.text, device].copy()


def masked_blob(terms: Terms, device: str, q: np.ndarray | None = None, *, key: SigningKey | None = None) -> bytes:
    """The signed update of this device; `key` of its masked vector, where that is another one."""
    payload = mask(vector(terms, device) if q is None else q.copy(), terms, device, key or device_key(device))
    return resigned(UpdateHeader.masked().to_bytes() + payload, device, round=terms.round, version=terms.version)


def resigned(blob: bytes, device: str, *, round: int = 1, version: int = 0) -> bytes:
    """An update with its device's signature."""
    context = Context(FEDERATION, 1, RUN, round, version, device, 1)
    return signed_update.sign(blob, context, device_key(device))


def masked_parts(terms: Terms, device: str, blob: bytes | None = None, **options) -> list[Received]:
    blob = masked_blob(terms, device) if blob is None else blob
    return update_parts(device, blob, round=terms.round, version=terms.version, part_bytes=256, **options)


def make_helper(name: str = "north", least: int = 2, state: State | None = None, **options) -> Helper:
    keys = options.get("keys") or helper_keys(name)
    helper = Helper(keys, options.get("roster") or roster(), Least(devices=least), state or State())
    helper.begin()
    helper.step(Connected(), 0.0)
    return helper


def asked(actions, name: str = "north") -> list[Received]:
    """What the coordinator asks this helper, as it comes there."""
    found = [a for a in of(actions, Publish) if (where := TOPICS.ask_part(a.topic)) and where.helper == name]
    return [Received(a.topic, a.payload) for a in found]


def no_noise(terms: Terms, purpose: bytes) -> Drawn:
    return Drawn(np.zeros(terms.length, np.int64))


def answer_of(helper: Helper, asks: list[Received], kept: dict[int, bytes] | None = None) -> list[Received]:
    """What the helper answers, as it comes to the coordinator. `kept` is its disk."""
    out, kept, waiting = [], {} if kept is None else kept, list(asks)
    while waiting:
        for action in helper.step(waiting.pop(0), 0.0):
            match action:
                case Open(job):
                    waiting.append(JobDone(job, job.run(no_noise)))
                case SaveOpened(state, blob):
                    kept[state.round] = blob
                case Find(round):
                    waiting.append(Found(round, kept.get(round)))
                case Publish(topic, payload):
                    out.append(Received(topic, payload))
    return out


def said(coordinator: RoundCoordinator, answer: Answer, name: str = "north") -> Received:
    """What a helper has signed of what it is asked, as it comes."""
    asking = coordinator._inquiry or coordinator._unmasking
    assert asking is not None
    blob, terms = answer.to_bytes(name, helper_keys(name).signing), asking.terms
    place = {"federation": coordinator.announcer.hash, "round": terms.round, "version": terms.version}
    splitter = Splitter(blob, 60_000, kind=Kind.ANSWER, codec=0, **place)
    return Received(TOPICS.answer(name, 0), splitter.part(0))


def knows(coordinator: RoundCoordinator, opened: int = 0, epsilon: float = 0.0, *, name="north", reason="known: so"):
    """What a helper answers before the first round with noise."""
    inquiry = coordinator._inquiry
    assert inquiry is not None
    return said(coordinator, Answer(inquiry.terms.digest, inquiry.set_digest, opened, epsilon, reason=reason), name)


def nothing_known(coordinator: RoundCoordinator, now: float = 0.0) -> list:
    """What the coordinator does once all helpers that it asks what they know have said that it is nothing."""
    inquiry, out = coordinator._inquiry, []
    for name in [] if inquiry is None else inquiry.silent:
        out += feed(coordinator, knows(coordinator, name=name), now=now)
    return out


def saved_in(actions) -> SavedAsk:
    (save,) = of(actions, SaveAsk)
    return save.saved


def expected(terms: Terms, devices: Sequence[str], params: np.ndarray = PARAMS) -> bytes:
    """The params that the sum of exactly these devices' integers gives, bit for bit."""
    total = sum(vector(terms, device).astype(np.int64) for device in devices)
    found, strategy = mean(total, terms), strategies.get("fedavg")
    strategy.start(params, terms.round)
    strategy.add(Update("", found.weight, codecs.get("raw32"), params_to_bytes(found.delta)))
    return params_to_bytes(strategy.finish())


def sent(coordinator: RoundCoordinator, terms: Terms, devices: Iterable[str] = FIVE, now: float = 1.0) -> list:
    """What the coordinator does while these devices send their updates, one after the other."""
    return [action for device in devices for action in feed(coordinator, *masked_parts(terms, device), now=now)]


def report(coordinator: RoundCoordinator, out: list, now: float, devices: Iterable[str] = FIVE) -> list:
    """The same in the round that is announced in `out`; these devices are enough to close it."""
    found = sent(coordinator, Terms.read(round_in(out).terms), devices, now)
    assert coordinator.phase == "unmasking"
    return found


def closed(devices=FIVE, privacy=PRIVACY, **options):
    """A coordinator that waits for its helpers after a round of these devices; terms, and what it did at the close."""
    coordinator, terms = open_masked(*devices, privacy=privacy, **options)
    out = sent(coordinator, terms, devices)
    assert coordinator.phase == "unmasking"
    return coordinator, terms, out


def abandoned(out, why: str) -> None:
    """The model stays, and the reason is in record and log."""
    commit = commit_of(out)
    assert commit is not None and commit.params is None
    assert (commit.record.state, commit.record.version) == ("abandoned", 0)
    assert why in commit.record.why
    assert any(note.level == "warning" and why in note.text for note in of(out, Note))


def word(out, device: str) -> Inbox | None:
    """What this device was told last."""
    found = of(out, Publish, TOPICS.inbox(device))
    return decode(Inbox, found[-1].payload.partition(b"\n")[0]) if found else None
