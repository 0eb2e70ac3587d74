"""Trust: which messages a device believes, and what it remembers so that nobody can lead it back. No I/O.

Manifest, round and inbox are sealed by the federation's signer, whose key the root has certified. The device pins the
root's public key and nothing else. What it has seen is on its disk (seen.py):

    serial, epoch    of the newest certificate. A lower serial is refused; a higher epoch begins anew
    run              in one epoch there is one
    attempt, round   of the newest round: an older one is dropped
    version, model, chain    of the newest model: a lower version is refused, and so is the same one with another
                     history, or a next one that does not follow from it
    issued           the latest moment at which a round was issued, which is this device's clock where it has none

Two things can be wrong. A message that is not sealed, or is older than what the device has seen, may come from anyone
who can publish: it is dropped, and the device goes on with what it believes. A newer round that goes back to an earlier
model, or forks, is the signer's own doing, since versions only rise in one history: it is refused, and the device takes
part again with the next round that does neither.

`Open` stands for a device without keys. Part of DeviceSession.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..errors import ProtocolError
from ..machine import Received, WallClock
from ..privacy import no_less
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.signed_update import Context, NotSigned, check, sign
from ..protocol.terms import Terms
from ..protocol.topics import Topics
from ..trust.certificate import SignerCertificate, purpose_of
from ..trust.ed25519 import SigningKey, fingerprint
from ..trust.seal import is_sealed, read_seal, seal
from .events import Outbox
from .seen import LESS, LOST, ONE_RUN, RESTORED, Seen

AHEAD_S = 24 * 3600  # of a trusted clock: what is later than that is wrong, even if it is signed
AGAIN_S = 3600  # `issued` alone is not written more often


class Keys(NamedTuple):
    """The root's public key, the key of this device, and what its disk has."""

    root: bytes
    key: SigningKey
    seen: Seen | None = None


class Forged(ProtocolError):
    """A message that the federation's signer has not sealed, or one from before what has been seen."""


class Refused(ProtocolError):
    """A round that the federation's signer has sealed, and that goes back or forks."""


class Rests(ProtocolError):
    """A round too soon after one that this device has taken part in."""


class Lost(ProtocolError):
    """The device does not know what it has seen, so its owner has to decide."""


class Open:
    """Without keys every message is believed: the broker's access control alone decides who can send it."""

    @property
    def signer(self) -> str:
        """What names the key that signs rounds; "" if none does."""
        return ""

    def open(self, event: Received, now: float) -> Received:
        """The message without its seal; Forged if it can't be believed."""
        if is_sealed(event.payload):
            raise ProtocolError(
                "this federation signs its messages, and this device has no keys: set [keys] dir to the folder from "
                "its operator: dropped"
            )
        return event

    def judge(self, round: Round, now: float) -> None:
        """Forged or Refused, if the device does not go by this round."""

    def is_named(self, manifest: str, round: Round | None) -> bool:
        """Whether to go by the manifest of this id now, while `round` is the newest."""
        return True

    def check_run(self, run: str) -> None:
        """Forged if a manifest or a receipt is not of this epoch's run."""

    def sign(self, manifest: Manifest, round: Round, blob: bytes) -> bytes:
        """The update, with a signature for this round."""
        return blob

    def has_signed(self, manifest: Manifest, saved: Outbox) -> bool:
        """Whether the aggregator can take this saved update for this device's."""
        return True

    def check_terms(self, terms: Terms, round: Round, now: float) -> None:
        """ProtocolError if the device does not go by these terms."""
        raise ProtocolError("a masked round, and this device has no keys: set [keys] dir")

    @property
    def last_masked(self) -> tuple[str, int]:
        """Run and round of this device's last masked update; "" and 0 before the first one."""
        return "", 0

    @property
    def may_mask(self) -> bool:
        """Whether rounds of this federation can be masked."""
        return False

    @property
    def has_masked(self) -> bool:
        """Whether this device has agreed to a masked round of its federation, as far as it knows."""
        return False

    @property
    def run(self) -> str:
        """The run that verdicts name; "" without keys."""
        return ""

    def seal(self, payload: bytes, topic: str) -> bytes:
        """A message of this device for a topic of its own."""
        return payload

    def news(self) -> Seen | None:
        """What to store before anything else is done; None: nothing has changed."""
        return None

    def has_turned(self) -> bool:
        """Whether a new epoch has begun since the last call: nothing from before it counts any more."""
        return False


class Pinned(Open):
    """With keys."""

    def __init__(self, topics: Topics, device: str, federation: str, keys: Keys, clock: WallClock) -> None:
        self.seen = self._stored = keys.seen or Seen()
        self._root, self._key, self._clock = keys.root, keys.key, clock
        self._device, self._federation = device, federation
        self._topics = (topics.manifest, topics.round, topics.inbox(device))
        self._certificate: SignerCertificate | None = None  # that messages without one are verified by
        self._raw = b""  # the same, as it came
        self._turned = False

    @property
    def signer(self) -> str:
        return "" if self._certificate is None else fingerprint(self._certificate.public)

    def open(self, event: Received, now: float) -> Received:
        if event.topic not in self._topics:
            return event
        try:
            sealed = read_seal(event.payload)
            certificate = self._certified(sealed.certificate, now)
        except ProtocolError as error:
            raise Forged(str(error)) from None
        if not sealed.is_signed(purpose_of(event.topic, certificate.epoch), certificate.public):
            raise Forged("not sealed by this federation's signer: dropped")
        self._learn(certificate, sealed.certificate)
        return Received(event.topic, sealed.payload, event.retained)

    def _certified(self, raw: bytes, now: float) -> SignerCertificate:
        """The certificate to verify a message by; ProtocolError if it is not the root's, was replaced, or is out of its
        dates."""
        found = self._certificate
        if raw and raw != self._raw:
            found = SignerCertificate.open(raw, self._root, self._federation)
        if found is None:
            raise ProtocolError("it came before the manifest, which says who signs: dropped")
        if (found.serial, found.epoch) != (max(found.serial, self.seen.serial), max(found.epoch, self.seen.epoch)):
            raise ProtocolError(f"its certificate, number {found.serial}, was replaced by {self.seen.serial}: dropped")
        trusted = self._clock.at(now)
        if self._time(now) > found.not_after:
            raise ProtocolError("its signer's certificate has expired: the operator runs `edgefl keys renew`: dropped")
        if trusted is not None and trusted + AHEAD_S < found.not_before:
            raise ProtocolError("its signer's certificate is not valid yet: is this device's clock right? Dropped")
        return found

    def _learn(self, certificate: SignerCertificate, raw: bytes) -> None:
        """What this certificate has signed is valid, so it has been seen."""
        if raw:
            self._certificate, self._raw = certificate, raw
        if certificate.epoch > self.seen.epoch:
            self._turned = self._turned or bool(self.seen.run)
            self.seen = self.seen.in_epoch(certificate.serial, certificate.epoch)
        elif certificate.serial > self.seen.serial:
            self.seen = replace(self.seen, serial=certificate.serial)

    def _time(self, now: float) -> float:
        """Seconds after the start of 1970 that have passed at least. What was seen without a clock may be wrong."""
        trusted, issued = self._clock.at(now), self.seen.issued
        if trusted is None:
            return issued
        return max(trusted, issued) if issued <= trusted + AHEAD_S else trusted

    def _latest(self, now: float) -> int:
        """The latest moment at which a round can have been issued. The end of the certificate bounds what a device
        without a clock believes, so that it believes the next certificate, whatever this one's key has signed."""
        trusted = self._clock.at(now)
        if trusted is not None:
            return int(trusted)
        return self._certificate.not_after if self._certificate else self.seen.issued

    def judge(self, round: Round, now: float) -> None:
        seen, what = self.seen, f"round {round.round}"
        if round.expires and self._time(now) > round.expires:
            raise Forged(f"{what} has expired: is the aggregator running, and is this device's clock right? Dropped")
        if why := seen.misled_by(round):
            raise Refused(f"{what} refused: {why}")
        if (round.attempt, round.round) < (seen.attempt, seen.round):
            newest = f"attempt {seen.attempt}, round {seen.round}, has been seen"
            raise Forged(f"{what} of attempt {round.attempt} is old, {newest}; {RESTORED}: dropped")
        issued = min(round.issued, self._latest(now))
        self.seen = replace(
            seen, run=round.run, attempt=round.attempt, round=round.round, version=round.version,
            model=round.model_sha256, chain=round.chain, issued=max(seen.issued, issued),
        )  # fmt: skip

    def is_named(self, manifest: str, round: Round | None) -> bool:
        """A manifest says nothing of its age, so an old one must not end the newest round."""
        return round is None or round.manifest == manifest

    def check_run(self, run: str) -> None:
        if self.seen.run and run != self.seen.run:
            raise Forged(f"it is of another run: {ONE_RUN}: dropped")

    def sign(self, manifest: Manifest, round: Round, blob: bytes) -> bytes:
        if round.terms:
            from . import masked

            newest = max(self.seen.masked_in(round.run), round.round)
            self.seen = replace(self.seen, masked_round=newest, masked_run=round.run)
            blob = masked.sign(blob, self._key)
        return sign(blob, self._context(manifest, round.round, round.version), self._key)

    def has_signed(self, manifest: Manifest, saved: Outbox) -> bool:
        try:
            check(saved.blob, self._context(manifest, saved.round, saved.version), self._key.public)
        except NotSigned:
            return False
        return True

    def _context(self, manifest: Manifest, round: int, version: int) -> Context:
        codec = manifest.update_codec.wire_id
        return Context(self._federation, self.seen.epoch, manifest.run, round, version, self._device, codec)

    def check_terms(self, terms: Terms, round: Round, now: float) -> None:
        from . import masked

        seen, apart = self.seen, terms.noise.separation
        if seen.lost:
            raise Lost(LOST)
        last = seen.masked_in(round.run)
        since = round.round - last
        if last and since != 0 and since < apart and apart > 1:  # a helper opens an earlier one first
            when = f"{since} rounds ago" if since > 0 else f"in round {last}"
            raise Rests(f"this device has taken part {when}, and {apart} must lie between")
        if terms.epsilon < seen.epsilon:
            raise ProtocolError(f"epsilon falls from {no_less(seen.epsilon)} to {terms.epsilon:g}: {LESS}")
        helpers = masked.Helpers(self._root, seen.helpers)
        found = helpers.check(terms, round, self._federation, self._clock.at(now))
        self.seen = replace(seen, helpers=found, epsilon=terms.epsilon)

    @property
    def last_masked(self) -> tuple[str, int]:
        return self.seen.masked_run, self.seen.masked_round

    @property
    def may_mask(self) -> bool:
        return True

    @property
    def has_masked(self) -> bool:
        return bool(self.seen.helpers) or self.seen.lost

    @property
    def run(self) -> str:
        return self.seen.run

    def seal(self, payload: bytes, topic: str) -> bytes:
        return seal(payload, topic, self._key)

    def news(self) -> Seen | None:
        seen, stored = self.seen, self._stored
        if replace(seen, issued=stored.issued) == stored and seen.issued < stored.issued + AGAIN_S:
            return None
        self._stored = seen
        return seen

    def has_turned(self) -> bool:
        turned, self._turned = self._turned, False
        return turned
