"""Owner's files: in some schedules, some devices keep accepted models as files, with and without training."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

from edgefl.device.events import KeepModel, NotKept
from edgefl.device.model.delivery import Wanted

from .violation import require

if TYPE_CHECKING:
    from .hosts import DeviceHost

EVERY_S = 5.0
REFUSES = 0.1  # of the writes: the disk has no room


class OwnersFiles:
    """The files outlive a start of the agent, and what is in them is what `Wanted` tells the next one."""

    def __init__(self, host: DeviceHost) -> None:
        seed = host.world.schedule.seed
        self._host = host
        self._wants = seed % 3 == 1 and zlib.crc32(f"{seed} {host.name}".encode()) % 2 == 0
        self._params = b""

    def wanted(self) -> Wanted | None:
        if not self._wants:
            return None
        sha256 = hashlib.sha256(self._params).hexdigest() if self._params else ""
        return Wanted(EVERY_S, sha256=sha256, params=self._params)

    def keep(self, action: KeepModel) -> None:
        """The model is that of a round which the aggregator has announced."""
        host, round = self._host, action.round
        require(self._wants, "I20", "%s keeps a model that nobody wants", host.name)
        told = hashlib.sha256(action.params).hexdigest() == round.model_sha256
        require(told, "I20", "%s keeps another model than round %d names", host.name, round.round)
        host.world.checker.keeps(host, round)
        if host.world.rng.random() < REFUSES:
            starts = host.starts
            host.clock.after(0.0, lambda: self._refuse(starts))
        else:
            self._params = action.params

    def _refuse(self, starts: int) -> None:
        if self._host.alive and self._host.starts == starts:
            self._host.feed(NotKept("no room"))
