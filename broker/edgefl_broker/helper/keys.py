"""The helper's keys with the root's word on them, and the roster, from the folder of `[keys] dir`.

Both may be replaced while the helper runs: devices were enrolled or revoked, or the next epoch of its keys has begun.
The roster comes from the root, by the operator's hand, and never from the aggregator: that could enrol devices of its
own, and be alone with one real one in a sum. A document that is older than one that was in use is refused, across
restarts too.
"""

from __future__ import annotations

import logging
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

from ..documents import Highest, check_serial, mark, read_roster, unfit
from .config import HelperConfig

FILES = {HELPER_CERTIFICATE: (HELPER_CERTIFICATE, BOX_KEY, SIGNING_KEY), ROSTER: (ROSTER,)}
log = logging.getLogger("edgefl.helper")


class KeyFolder:
    """UsageError if a file is missing, can't be read, or does not fit the others."""

    def __init__(self, config: HelperConfig, serial: Highest) -> None:
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
        return tuple(mark(self._folder / file) for file in FILES[name])

    def _keys(self) -> Keys:
        path, config = self._folder / HELPER_CERTIFICATE, self._config
        try:
            found = HelperCertificate.open(read_file(path).rstrip(b"\n"), self._root, config.federation)
        except ProtocolError as error:
            raise unfit(path, error) from None
        if found.name != config.name:
            raise UsageError(f"{path} is about helper {found.name!r}, and `name` is {config.name!r}: correct it")
        box, signing = new_box_key(read_seed(self._folder / BOX_KEY)), SigningKey(read_seed(self._folder / SIGNING_KEY))
        if (box[0], signing.public) != (found.box_public, found.public):
            raise UsageError(
                f"{path} is not about {BOX_KEY} and {SIGNING_KEY} beside it: unpack the helper's newest bundle again"
            )
        check_serial(path, "helper_serial", found.serial, self._serial)
        return Keys(found.name, found.federation, found.epoch, self._root, *box, signing)

    def _roster(self) -> Roster:
        return read_roster(self._folder / ROSTER, self._root, self._config.federation, self._serial)
