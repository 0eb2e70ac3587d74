"""LastManifest: the newest manifest that this device has believed, as a file in its state folder.

`edgefl-agent --check` compares the data with it where it must not ask the broker: beside an agent that runs, whose
client id it would take, and off line. The agent itself never reads it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from edgefl.atomic import write_atomically
from edgefl.errors import ProtocolError
from edgefl.protocol.manifest import Manifest, manifest_id
from edgefl.protocol.messages import RETAINED_LIMIT, decode

NAME = "manifest.json"
AGAIN_S = 60.0  # between two writes, whatever an aggregator publishes
log = logging.getLogger("edgefl.agent")


class LastManifest:
    """`look` is called now and then, with the newest manifest."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME
        self._write_at = 0.0
        self._id = ""
        with suppress(OSError):
            self._id = manifest_id(self._path.read_bytes())

    def look(self, manifest: Manifest | None, now: float) -> None:
        """Write it, if it is another one. Nothing depends on the file, so a disk that fails is only a line in the
        log."""
        if manifest is None or now < self._write_at or manifest.id == self._id:
            return
        self._id, self._write_at = manifest.id, now + AGAIN_S
        try:
            write_atomically(self._path, manifest.raw, mode=0o600)
        except OSError as error:
            log.warning("%s can't be written (%s): edgefl-agent --check will not know it", self._path, error.strerror)


def read(state_dir: Path) -> Manifest | None:
    """The manifest of an agent that has run here; None if no manifest can be read there."""
    try:
        return decode(Manifest, (state_dir / NAME).read_bytes(), RETAINED_LIMIT)
    except (OSError, ProtocolError):
        return None
