"""Seen: what a device remembers of its federation, so that nobody leads it back. No I/O. Its rules are in trust.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..protocol.round import Round

ONE_RUN = "in one epoch there is one; its operator begins the next with `edgefl keys epoch`"
RESTORED = "if the aggregator was restored from a backup, its operator runs `edgefl keys epoch`"
LESS = (
    "the aggregator is new or was restored: its operator runs `edgefl keys epoch`, or sets [privacy] told "
    "(docs/privacy.md)"
)
LOST = (
    "what this device remembers of epsilon and of helpers' keys is damaged, and it takes part in no masked round: its "
    "owner stops the agent and runs `edgefl-agent recover`"
)


@dataclass(frozen=True)
class Seen:
    """What a device has seen of its federation; "" and 0: nothing yet in this epoch.

    `helpers`: of each, serial and fingerprint of the newest certificate. `epsilon`: the highest that a masked round has
    told; `masked_round` of `masked_run`: the last one in which the device has made an update. `root`: the fingerprint
    of the federation's root, whose all of this is. `lost`: it was damaged on the disk, so there was more to judge
    masked rounds by."""

    serial: int = 0
    epoch: int = 0
    run: str = ""
    attempt: int = 0
    round: int = 0
    version: int = 0
    model: str = ""
    chain: str = ""
    issued: int = 0
    helpers: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    epsilon: float = 0.0
    masked_round: int = 0
    masked_run: str = ""
    root: str = ""
    lost: bool = False

    def in_epoch(self, serial: int, epoch: int) -> Seen:
        """In a new epoch nothing has been seen yet, but what belongs to the root. Its run may be the one before."""
        return Seen(
            serial, epoch, helpers=self.helpers, epsilon=self.epsilon, masked_round=self.masked_round,
            masked_run=self.masked_run, root=self.root, lost=self.lost,
        )  # fmt: skip

    def joined(self, later: Seen) -> Seen:
        """What this record and a later one know together: of messages and certificates the newest, the highest epsilon,
        and the last masked round of the later one's run, if it names one."""
        newest = max(self, later, key=lambda seen: (seen.epoch, seen.attempt, seen.round, seen.version))
        serial = max(seen.serial for seen in (self, later) if seen.epoch == newest.epoch)
        helpers = {**self.helpers, **later.helpers}
        for name in self.helpers.keys() & later.helpers.keys():
            helpers[name] = max(self.helpers[name], later.helpers[name])
        run = later.masked_run or self.masked_run
        last = max(self.masked_in(run), later.masked_in(run))
        epsilon = max(self.epsilon, later.epsilon)
        return replace(newest, serial=serial, helpers=helpers, epsilon=epsilon, masked_round=last, masked_run=run)

    def masked_in(self, run: str) -> int:
        """The last masked round of this run in which the device has made an update; 0: none."""
        return self.masked_round if self.masked_run in ("", run) else 0

    def misled_by(self, round: Round) -> str:
        """Why the signer has gone back, or told two histories, in this epoch; "" if it has not. No round of one history
        is refused by this, however old."""
        if not self.run:
            return ""
        if round.run != self.run:
            return f"it is of another run: {ONE_RUN}"
        if (round.attempt, round.round) < (self.attempt, self.round):
            return ""
        if round.version < self.version:
            return f"it goes back from model {self.version} to {round.version}; {RESTORED}"
        if round.version == self.version:
            told_two = round.attempt == self.attempt and round.model_sha256 != self.model
            return f"model {self.version} was another one" if told_two or round.chain != self.chain else ""
        if round.version == self.version + 1 and round.previous != self.chain:
            return f"model {round.version} does not follow from the model {self.version} that has been seen"
        return ""
