"""The helper's keys with the root's word on them, and the roster, from the folder of `[keys] dir`.

Both may be replaced while the helper runs: devices were enrolled or revoked, or the next epoch of its keys has begun.
The roster comes from the root, by the operator's hand, and never from the aggregator: that could enrol devices of its
own, and be alone with one real one in a sum. A document that is older than one that was in use is refused, across
restarts too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from edgefl.errors import ProtocolError, UsageError
from edgefl.helper.events import Keys, KeysRead, RosterRead
from edgefl.masking.sealed import new_box_key
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.key_files import (
    BOX_KEY,
    HELPER_CERTIFICATE,
    ROOT_PUBLIC,
    ROSTER,
    SIGNING_KEY,
    read_file,
    read_public,
    read_seed,
)
from edgefl.trust.roster import Roster

from .config import HelperConfig

COPY = "copy it again from the folder of `edgefl keys`"
FILES = {HELPER_CERTIFICATE: (HELPER_CERTIFICATE, BOX_KEY, SIGNING_KEY), ROSTER: (ROSTER,)}
log = logging.getLogger("edgefl.helper")


class KeyFolder:
    """`serial` is given a document's name and serial, stores the highest one durably, and returns it. UsageError if a
    file is missing, can't be read, or does not fit the others."""

    def __init__(self, config: HelperConfig, serial: Callable[[str, int], int]) -> None:
        if config.keys.dir is None:
            raise UsageError("a helper needs keys: set [keys] dir to the folder that its bundle was unpacked into")
        self._folder, self._config, self._serial = Path(config.keys.dir), config, serial
        self._root = read_public(self._folder / ROOT_PUBLIC)
        self._seen = {name: self._mark(name) for name in FILES}
        self.keys, self.roster = self._keys(), self._roster()

    def news(self) -> list[KeysRead | RosterRead]:
        """What has been replaced since the last call. A file that can't be used is logged, and looked at again when it
        changes: what was in use stays in use."""
        out: list[KeysRead | RosterRead] = []
        for name in FILES:
            mark = self._mark(name)
            if mark == self._seen[name]:
                continue
            self._seen[name] = mark
            try:
                out.append(RosterRead(self._roster()) if name == ROSTER else KeysRead(self._keys()))
                log.info("%s was replaced, and is in use", self._folder / name)
            except UsageError as error:
                log.error("%s: going on with what was in use", error)
        return out

    def _mark(self, name: str) -> tuple[object, ...]:
        """Changes when the file is replaced; keys beside their certificate count as part of it."""
        return tuple(_stat(self._folder / file) for file in FILES[name])

    def _keys(self) -> Keys:
        path, config = self._folder / HELPER_CERTIFICATE, self._config
        try:
            found = HelperCertificate.open(read_file(path).rstrip(b"\n"), self._root, config.federation)
        except ProtocolError as error:
            raise _unfit(path, error) from None
        if found.name != config.name:
            raise UsageError(f"{path} is about helper {found.name!r}, and `name` is {config.name!r}: correct it")
        box, signing = new_box_key(read_seed(self._folder / BOX_KEY)), SigningKey(read_seed(self._folder / SIGNING_KEY))
        if (box[0], signing.public) != (found.box_public, found.public):
            raise UsageError(
                f"{path} is not about {BOX_KEY} and {SIGNING_KEY} beside it: unpack the helper's newest bundle again"
            )
        self._check_serial(path, "helper_serial", found.serial)
        return Keys(found.name, found.federation, found.epoch, self._root, *box, signing)

    def _roster(self) -> Roster:
        path = self._folder / ROSTER
        try:
            roster = Roster.open(read_file(path), self._root, self._config.federation)
        except ProtocolError as error:
            raise _unfit(path, error) from None
        self._check_serial(path, "roster_serial", roster.serial)
        return roster

    def _check_serial(self, path: Path, kind: str, serial: int) -> None:
        newest = self._serial(kind, serial)
        if serial < newest:
            raise UsageError(f"{path} is number {serial}, and number {newest} has been in use: {COPY}")


def _unfit(path: Path, error: ProtocolError) -> UsageError:
    why = str(error).removesuffix(": dropped")
    return UsageError(f"{path} can't be used: {why}: {COPY}")


def _stat(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from the one before: the time of its last change, since tar restores that of its making."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ctime_ns, status.st_ino, status.st_size
