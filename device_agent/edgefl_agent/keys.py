"""The agent's keys: the root that it pins, its own key, and the certificate from its enrolment, from the folder that
`[keys] dir` names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgefl.device.seen import Seen
from edgefl.device.trust import Keys
from edgefl.errors import ProtocolError, UsageError
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey, fingerprint
from edgefl.trust.key_files import ROOT_PUBLIC, SIGNER_CERTIFICATE, SIGNING_KEY, read_file, read_public, read_seed
from edgefl.trust.settings import KeysConfig

OPEN = "this federation is open: messages are not verified, updates are not signed; set [keys] dir to change that"


def root_of(config: KeysConfig) -> str:
    """The fingerprint of the root that the device pins; "" without keys. UsageError."""
    return "" if config.dir is None else fingerprint(read_public(Path(config.dir) / ROOT_PUBLIC))


def load_keys(config: KeysConfig, federation: str, seen: Seen | None) -> Keys | None:
    """The keys, and what the device has seen, at its enrolment at least; None without keys. UsageError."""
    if config.dir is None:
        return None
    folder = Path(config.dir)
    root = read_public(folder / ROOT_PUBLIC)
    seen = replace(seen or Seen(), root=fingerprint(root))
    if (folder / SIGNER_CERTIFICATE).exists():
        seen = _since_enrolment(folder / SIGNER_CERTIFICATE, root, federation, seen)
    return Keys(root, SigningKey(read_seed(folder / SIGNING_KEY)), seen)


def _since_enrolment(path: Path, root: bytes, federation: str, seen: Seen) -> Seen:
    """What has been seen, no older than the certificate in the device's bundle. A key that was replaced before the
    device was enrolled can't win it at its first contact."""
    try:
        found = SignerCertificate.open(read_file(path), root, federation)
    except ProtocolError as error:
        text = str(error).removesuffix(": dropped")
        raise UsageError(f"{path}: {text}: unpack the device's bundle again, or correct `federation`") from None
    if found.epoch > seen.epoch:
        return seen.in_epoch(found.serial, found.epoch)
    return replace(seen, serial=max(seen.serial, found.serial))
