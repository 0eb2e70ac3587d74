"""The aggregator's keys: its signing key with the root's word on it, and the roster, from the folder of `[keys] dir`.

Both documents may be replaced while the aggregator runs: a device was enrolled or revoked, or the root has certified
another key. They are looked at once a second. A document that is older than one that was in use is refused, across
restarts too: a copy from before a revocation would let the revoked device in again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from edgefl.coordinator.events import RosterRead, SignerRead
from edgefl.coordinator.signing import Keys
from edgefl.errors import ProtocolError, UsageError
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.key_files import (
    ROOT_PUBLIC,
    ROSTER,
    SIGNER_CERTIFICATE,
    SIGNER_KEY,
    read_file,
    read_public,
    read_seed,
)
from edgefl.trust.roster import Roster
from edgefl.trust.settings import KeysConfig

from .documents import Highest, check_serial, mark, read_roster, unfit

OPEN = "this federation is open: nothing is signed, and updates are not verified; set [keys] dir to change that"
WARN_S = 14 * 24 * 3600  # before the signer's certificate ends
log = logging.getLogger("edgefl.aggregator")


def open_keys(config: KeysConfig, federation: str, serial: Highest) -> KeyFolder | None:
    """The folder; None, and a warning, if the configuration names none. UsageError."""
    if config.dir is None:
        log.warning("%s", OPEN)
        return None
    return KeyFolder(Path(config.dir), federation, serial)


class KeyFolder:
    """UsageError if a file is missing, can't be read, or does not fit the others."""

    def __init__(self, folder: Path, federation: str, serial: Highest) -> None:
        self._folder, self._federation, self._serial = folder, federation, serial
        self._root = read_public(folder / ROOT_PUBLIC)
        self._seen = {name: self._mark(name) for name in (SIGNER_CERTIFICATE, ROSTER)}
        self.keys: Keys = (self._signer(), self._roster())

    def news(self) -> list[SignerRead | RosterRead]:
        """What has been replaced since the last call. A file that can't be used is logged, and looked at again when it
        changes: what was in use stays in use."""
        out: list[SignerRead | RosterRead] = []
        for name in self._seen:
            mark = self._mark(name)
            if mark == self._seen[name]:
                continue
            self._seen[name] = mark
            try:
                out.append(self._signer() if name == SIGNER_CERTIFICATE else RosterRead(self._roster()))
                log.info("%s was replaced, and is in use", self._folder / name)
            except UsageError as error:
                log.error("%s: going on with what was in use", error)
        return out

    def _mark(self, name: str) -> tuple[object, ...]:
        """Changes when the file is replaced; a key beside its certificate counts as part of it."""
        return tuple(mark(self._folder / file) for file in ((name, SIGNER_KEY) if name != ROSTER else (name,)))

    def _signer(self) -> SignerRead:
        path = self._folder / SIGNER_CERTIFICATE
        raw = read_file(path).rstrip(b"\n")
        try:
            certificate = SignerCertificate.open(raw, self._root, self._federation)
        except ProtocolError as error:
            raise unfit(path, error) from None
        key = SigningKey(read_seed(self._folder / SIGNER_KEY))
        if key.public != certificate.public:
            raise UsageError(
                f"{path} is not about {SIGNER_KEY} beside it: copy both again from the folder of `edgefl keys`"
            )
        left_s = certificate.not_after - time.time()
        if left_s < 0:
            raise UsageError(f"{path} has expired: `edgefl keys renew` writes another, which is copied here")
        if left_s < WARN_S:
            log.warning("%s expires in %.0f days: `edgefl keys renew` writes another", path, left_s / 86400)
        check_serial(path, "signer_serial", certificate.serial, self._serial)
        return SignerRead(key, raw, certificate.epoch)

    def _roster(self) -> Roster:
        return read_roster(self._folder / ROSTER, self._root, self._federation, self._serial)
