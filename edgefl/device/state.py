"""SessionState: all that DeviceSession knows, and what follows from it. No I/O.

The parts are made here, once. Messages are processed in listening.py, all other events in session.py.
"""

from __future__ import annotations

import random

from ..machine import WallClock
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.topics import ROOT, Topics, check_device_id
from ..protocol.trouble import Trouble
from .events import Outbox
from .model.delivery import Wanted
from .owner.allowance import Allowance
from .owner.budget import Budget, Limits, Spent
from .owner.policy import OPEN, OwnersWord
from .patience import Patience
from .report.answers import Answers
from .report.reporting import Reporting
from .shelf import Shelf
from .status import DeviceStatus
from .trust import Keys, Open, Pinned
from .work import Terms, Work


class SessionState:
    """`shelf` has what other sessions of the process have read already, and `base` what KeepBase has kept."""

    def __init__(
        self,
        device: str,
        federation: str,
        *,
        num_examples: int,
        rng: random.Random,
        outbox: Outbox | None = None,
        in_model: int = 0,
        limits: Limits | None = None,
        spent: Spent | None = None,
        owner: OwnersWord | None = None,
        max_model_bytes: int = 2**28,
        shelf: Shelf | None = None,
        root: str = ROOT,
        keys: Keys | None = None,
        wanted: Wanted | None = None,
        base: bytes = b"",
    ) -> None:
        self.device = check_device_id(device)
        self.topics = Topics(federation, root)
        self.federation = federation
        self._stopped = False
        self.status = DeviceStatus(self.topics.status(self.device), num_examples)
        if wanted is not None and not wanted.trains:
            self.status.idle = Trouble("", "its owner has it take the model, and train nothing")
        self.dropped = 0  # messages that violated the protocol
        self.refused = 0  # manifests and rounds that require what this version does not know
        self.clock = WallClock()
        self.allowance = Allowance(Budget(limits, spent, self.clock), self.topics, self.device)
        self.trust = Open() if keys is None else Pinned(self.topics, self.device, federation, keys, self.clock)
        self._shelf = shelf or Shelf()
        self.forged = 0  # messages that the federation's signer has not sealed, or that are older than what was seen
        self._patience = Patience()
        self._reporting = Reporting(
            self.topics, self.device, patience=self._patience, rng=rng, outbox=outbox, in_model=in_model
        )
        self._saved = self._reporting.saved
        self._part = Answers(
            self.topics, self.device, clock=self.clock, status=self.status, allowance=self.allowance,
            reporting=self._reporting, patience=self._patience, rng=rng, shelf=self._shelf, trust=self.trust,
            wanted=wanted, base=base, policy=(owner or OwnersWord(OPEN)).policy,
        )  # fmt: skip
        self._max_model_bytes = max_model_bytes
        self._owner = owner or OwnersWord(OPEN)
        self._manifest: Manifest | None = None  # the newest, accepted or refused, unless it could not be read
        self._unnamed: Manifest | None = None  # the newest manifest, which no round has named yet
        self._heard_manifest = ""  # id of the newest manifest that has arrived, accepted or refused

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        return self._part.wake_at

    @property
    def calm_s(self) -> float:
        """How long a lost connection may stay away: no round waits for a device that has nothing to report."""
        return self._part.calm_s

    @property
    def round(self) -> Round | None:
        """The newest round."""
        return self._part.round

    @property
    def terms(self) -> Terms | None:
        """What the device has agreed to."""
        return self._part.terms

    @property
    def manifest(self) -> Manifest | None:
        """The newest manifest that was believed, accepted or refused."""
        return self._manifest

    @property
    def work(self) -> Work | None:
        """What the device is doing for a round."""
        return self._part.work

    @property
    def is_fresh(self) -> bool:
        """Whether the data have changed since they last counted."""
        return self._saved.is_fresh

    @property
    def data_stamp(self) -> int:
        """The newest DataStamp."""
        return self._saved.stamp

    @property
    def wants_news(self) -> bool:
        """Whether it matters to rounds that the data change, which they have not."""
        return self.round is not None and self.round.only_new_data and not self._saved.is_fresh
