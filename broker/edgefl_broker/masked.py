"""What masked rounds need of the aggregator's folder of keys: what the root says of each helper (docs/masked.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgefl import masked_fit
from edgefl.coordinator.masked_terms import MaskedTerms
from edgefl.errors import ProtocolError, UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.privacy.ledger import Ledger
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.terms import Party
from edgefl.trust.ed25519 import fingerprint
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.key_files import ROOT_PUBLIC, helper_file, read_file, read_public

from .keys import COPY


def open_masked(
    config: AggregatorConfig, manifest: Manifest, ledger: Callable[[str, float], Ledger]
) -> MaskedTerms | None:
    """What makes the terms of masked rounds; None if rounds are not masked. `ledger`: what the federation of a root, by
    its fingerprint, has spent at a delta. UsageError, StoreError."""
    if not config.privacy.masked:
        return None
    assert config.keys.dir is not None  # masked_fit.check has seen to that
    folder, most = Path(config.keys.dir), masked_fit.most_of(config)
    assert most is not None
    read = [_certificate(folder, config.federation, name) for name in config.privacy.helper_names]
    return MaskedTerms(
        config.privacy, manifest, most=most, rounds=config.rounds.rounds or 0,
        helpers=[Party(found.name, found.epoch, found.box, found.key) for found, _ in read],
        certificates=[raw.decode() for _, raw in read],
        ledger=ledger(fingerprint(read_public(folder / ROOT_PUBLIC)), config.privacy.delta)
        if config.privacy.noise != "none"
        else None,
    )  # fmt: skip


def _certificate(folder: Path, federation: str, name: str) -> tuple[HelperCertificate, bytes]:
    path = folder / helper_file(name)
    raw = read_file(path).rstrip(b"\n")
    try:
        found = HelperCertificate.open(raw, read_public(folder / ROOT_PUBLIC), federation)
    except ProtocolError as error:
        why = str(error).removesuffix(": dropped")
        raise UsageError(f"{path} can't be used: {why}: {COPY}") from None
    if found.name != name:
        raise UsageError(f"{path} is about helper {found.name!r}, not {name!r}: {COPY}")
    return found, raw
