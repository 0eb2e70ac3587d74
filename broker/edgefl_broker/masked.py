"""What masked rounds need of the aggregator's folder of keys: what the root says of each helper (docs/helper.md).

A certificate may be replaced while the aggregator runs: the helper's next epoch has begun. Rounds that open from then
on name its new keys. One that is older than one that was in use is refused, across restarts too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from edgefl import masked_fit
from edgefl.coordinator.events import HelpersRead
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.errors import ProtocolError, UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.terms import Party
from edgefl.trust.ed25519 import fingerprint
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.key_files import ROOT_PUBLIC, helper_file, read_file, read_public

from .documents import COPY, mark
from .store import AggregatorStore

log = logging.getLogger("edgefl.aggregator")
Serial = Callable[[str, int], int]


def open_helpers(config: AggregatorConfig, serial: Serial) -> HelperFolder | None:
    """The certificates of the helpers; None if rounds are not masked. UsageError."""
    if not config.privacy.masked:
        return None
    assert config.keys.dir is not None  # masked_fit.check has seen to that
    return HelperFolder(Path(config.keys.dir), config.federation, config.privacy.helper_names, serial)


def masked_terms(
    config: AggregatorConfig, manifest: Manifest, helpers: HelperFolder | None, store: AggregatorStore
) -> MaskedTerms | None:
    """What makes the terms of masked rounds; None if rounds are not masked. `store` knows what the federation of this
    root has spent, and where an adaptive clip is. UsageError, StoreError."""
    if helpers is None:
        return None
    most, privacy = masked_fit.most_of(config), config.privacy
    assert most is not None
    return MaskedTerms(
        privacy, manifest, most=most, fleet=masked_fit.fleet_of(config), features=config.features,
        rounds=config.rounds.rounds or 0, helpers=helpers.read.parties, certificates=helpers.read.certificates,
        ledger=None if privacy.noise == "none" else store.ledger(fingerprint(helpers.root), privacy.delta),
        moved=None if privacy.clip_quantile is None else store.clip(),  # one that is fixed needs none
    )  # fmt: skip


class HelperFolder:
    """`serial` is as KeyFolder has it. UsageError if a file is missing, or can't be used."""

    def __init__(self, folder: Path, federation: str, names: list[str], serial: Serial) -> None:
        self._folder, self._federation, self._names, self._serial = folder, federation, names, serial
        self.root = read_public(folder / ROOT_PUBLIC)
        self._seen = self._marks()
        self.read = self._read()

    def news(self) -> list[HelpersRead]:
        """What has been replaced since the last call; what can't be used is logged, and what was in use stays."""
        marks = self._marks()
        if marks == self._seen:
            return []
        self._seen = marks
        try:
            self.read = self._read()
        except UsageError as error:
            log.error("%s: going on with what was in use", error)
            return []
        log.info("a helper's certificate was replaced, and is in use from the next round on")
        return [self.read]

    def _marks(self) -> list[object]:
        return [mark(self._folder / helper_file(name)) for name in self._names]

    def _read(self) -> HelpersRead:
        read = [self._certificate(name) for name in self._names]
        parties = tuple(Party(found.name, found.epoch, found.box, found.key) for found, _ in read)
        return HelpersRead(parties, tuple(raw.decode() for _, raw in read))

    def _certificate(self, name: str) -> tuple[HelperCertificate, bytes]:
        path = self._folder / helper_file(name)
        raw = read_file(path).rstrip(b"\n")
        try:
            found = HelperCertificate.open(raw, self.root, self._federation)
        except ProtocolError as error:
            why = str(error).removesuffix(": dropped")
            raise UsageError(f"{path} can't be used: {why}: {COPY}") from None
        if found.name != name:
            raise UsageError(f"{path} is about helper {found.name!r}, not {name!r}: {COPY}")
        newest = self._serial(f"helper_serial {name}", found.serial)
        if found.serial < newest:
            raise UsageError(f"{path} is number {found.serial}, and number {newest} has been in use: {COPY}")
        return found, raw
