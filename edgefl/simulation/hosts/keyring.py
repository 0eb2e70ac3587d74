"""Keyring: the keys of a simulated federation whose rounds are masked: of the root, the aggregator, devices, helpers.

All come from the run's seed, so a run repeats. They protect nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ...coordinator.events import SignerRead
from ...coordinator.signing import Keys as AggregatorKeys
from ...device.seen import Seen
from ...device.trust import Keys
from ...helper.events import Keys as HelperKeys
from ...masking.sealed import new_box_key
from ...protocol.terms import Party
from ...trust.certificate import SignerCertificate
from ...trust.ed25519 import SigningKey, fingerprint
from ...trust.helper_certificate import HelperCertificate
from ...trust.roster import Member, Roster

SERIAL = EPOCH = 1
LAST = 2**40  # seconds after the start of 1970


class Keyring:
    """The keys of these devices and helpers."""

    def __init__(self, federation: str, seed: int, devices: Sequence[str], helpers: Sequence[str]) -> None:
        self._federation, self._seed = federation, seed
        self._root, self._signer = self._key("root"), self._key("signer")
        self.helpers = tuple(helpers)
        members = {device: Member.of(self._key("device", device).public) for device in devices}
        self.roster = Roster(federation, SERIAL, members)

    def _bytes(self, *what: str) -> bytes:
        return hashlib.sha256("\n".join(("edgefl simulation", str(self._seed), *what)).encode()).digest()

    def _key(self, *what: str) -> SigningKey:
        return SigningKey(self._bytes(*what))

    @property
    def aggregator(self) -> AggregatorKeys:
        """As the aggregator reads them."""
        times = {"not_before": 0, "not_after": LAST}
        certificate = SignerCertificate.of(
            self._signer.public, federation=self._federation, serial=SERIAL, epoch=EPOCH, **times
        ).seal(self._root)
        return SignerRead(self._signer, certificate, EPOCH), self.roster

    def device(self, name: str, seen: Seen | None) -> Keys:
        """As a device has them."""
        return Keys(self._root.public, self._key("device", name), seen)

    def helper(self, name: str) -> HelperKeys:
        """As a helper has them."""
        box = new_box_key(self._bytes("box", name))
        return HelperKeys(name, self._federation, EPOCH, self._root.public, *box, self._key("helper", name))

    def _certificate(self, name: str) -> HelperCertificate:
        keys = self.helper(name)
        return HelperCertificate.of(
            name, keys.box_public, keys.signing.public, federation=self._federation, serial=SERIAL, epoch=EPOCH,
            not_before=0, not_after=LAST,
        )  # fmt: skip

    @property
    def root(self) -> str:
        """The fingerprint of the root's key."""
        return fingerprint(self._root.public)

    @property
    def parties(self) -> list[Party]:
        """The helpers' public keys, as terms have them."""
        found = map(self._certificate, self.helpers)
        return [Party(each.name, each.epoch, each.box, each.key) for each in found]

    @property
    def certificates(self) -> list[str]:
        """What the root says of them."""
        return [self._certificate(name).seal(self._root).decode() for name in self.helpers]
