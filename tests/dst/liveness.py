"""Liveness, I07: once the faults have stopped, rounds commit, and every present device counts, within bounds.

a commit, and all healthy devices      RECONNECT_S and ROUNDS deadlines, as long as the round's message says
if trainings outlast the deadline      RECONNECT_S and two rounds of DEADLINES deadlines each
if handicaps last (lasting.py)         the same, and then the median of PACE_ROUNDS rounds takes PACE_S at most: each
                                       slow, hung or frozen device costs a cut-off round, and none sets the pace
where devices rest (noise.py)          the same, after two rests: a round learns of those alone that do not rest in it
on slow lines                          in each round, CYCLE_BYTES at the slowest rate on top; and what is queued on
                                       lines when they heal passes in its time
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.opening import DEADLINES
from edgefl.history_record import RoundRecord

from .lasting import TRAINING_S
from .masked import HELPER_S
from .operator import CANARY_DEADLINE_S, gate_of
from .truth import Truth
from .violation import require

if TYPE_CHECKING:
    from .world import World

RECONNECT_S = 90.0  # both ends have noticed, the longest back-off is over, late wills have come
ROUNDS = 4  # deadlines until a round commits: the one that is open may be beyond help
PACE_ROUNDS = 9
PACE_S = TRAINING_S[1] + 30.0  # training, and a report that is repeated: its receipt may come after the next round
CYCLE_BYTES = 4000  # of manifest, round, model and update
MASKED_BYTES = 4000  # of terms and certificates, twice, and of sealed seeds


class Liveness:
    """`satisfied` after the healing, or a Violation."""

    def __init__(self, world: World, truth: Truth) -> None:
        self._world, self.truth = world, truth
        self._from = 0  # records before the healing
        self._late: set[tuple[str, int]] = set()  # updates that waited for a model then
        # Of the round that was open then, or up to the second record since: they may have learned of slow devices
        self._deadline_s = 0.0
        self._backlog_s = 0.0  # on slow lines then: a session that a device resumes may hold dozens of rounds

    def heal(self) -> None:
        announced = self._world.checker.announced
        self._deadline_s = max(self._world.schedule.round_s, announced.deadline_s if announced else 0.0)
        connections = [device.connection for device in self._world.devices if device.connection is not None]
        self._backlog_s = max((connection.backlog_s() for connection in connections), default=0.0)
        self._from = len(self.truth.records)
        self._late = set(self._world.aggregator.disk.late)

    def satisfied(self) -> bool:
        world, schedule = self._world, self._world.schedule
        assert world.healed_at is not None
        new = self.truth.records[self._from :]
        if len(new) <= 1 and self._world.checker.announced is not None:
            self._deadline_s = max(self._deadline_s, self._world.checker.announced.deadline_s)
        left = {device.name for device in world.devices if not (device.gone or device.handicap or device.is_hostile)}
        waited = world.clock.now - world.healed_at
        if world.aggregator.alive and self._is_over(world.aggregator.machine):
            return True
        done = bool(new)
        if len(left) == len(world.devices) or self._asks_all():  # else the drawn devices may have left
            done = any(record.state != "abandoned" for record in new)
            done = done and not self._late & self._world.aggregator.disk.late.keys()
        if self._all_count():
            done = done and left <= {n for r in new for n in [*r.devices, *(device for device, _ in r.folded)]}
        sure = schedule.lasting.heals and self._asks_all()  # else the open round may need one that never reports
        deadlines = ROUNDS if sure else DEADLINES + 1
        if schedule.lasting.outlasts_deadline:
            deadlines = 2 * DEADLINES
        if schedule.noisy.separation > 1:  # devices that left unseen do not rest: two rounds may ask them alone
            deadlines += 2 * DEADLINES
        bound = RECONNECT_S + deadlines * (self._deadline_s + self._judged_s) + ROUNDS * self._transfer_s()
        bound += self._backlog_s
        names = [record.devices for record in new]
        require(done or waited < bound, "I07", "%d s after the faults: %r of %s", waited, names, sorted(left))
        return done and (world.schedule.lasting.heals or self._keeps_pace(new))

    def _is_over(self, machine: RoundCoordinator) -> bool:
        """Whether all rounds are done that there were to be. After a loss some of them may have been left out, and the
        others have had no sum, since devices rested that had counted in the ones left out: its operator has the word.
        """
        rounds = self._world.schedule.config.rounds
        misled = bool(self._world.losses) and machine._asks_operator and rounds is not None and machine.round > rounds
        over = machine.phase == "done" or misled
        require(not over or (rounds is not None and machine.round > rounds), "I07", "done at round %d", machine.round)
        return over

    def _keeps_pace(self, new: list[RoundRecord]) -> bool:
        """Devices that stay slow, hung or frozen do not set the pace: the median round is as long as it takes the
        others, and a slow link its bytes."""
        lasting = self._world.schedule.lasting
        assert self._world.healed_at is not None
        waited = self._world.clock.now - self._world.healed_at
        rounds = PACE_ROUNDS + 2 * max(0, self._world.schedule.noisy.separation - 1)
        if len(new) < rounds:
            longest = RECONNECT_S + (DEADLINES + rounds) * (self._deadline_s + self._judged_s + self._transfer_s())
            require(waited < longest, "I07", "%d rounds in %d s with %r", len(new), waited, lasting.handicaps)
            return False
        bound = PACE_S + self._judged_s + self._transfer_s()
        seconds = [round(record.seconds) for record in new[-PACE_ROUNDS:]]
        require(statistics.median(seconds) <= bound, "I07", "rounds of %r s with %r", seconds, lasting.handicaps)
        return True

    @property
    def _judged_s(self) -> float:
        """How long canaries, or helpers, may take."""
        helped_s = HELPER_S if self._world.schedule.masked else 0.0
        return helped_s + (CANARY_DEADLINE_S if gate_of(self._world.schedule).judge == "canaries" else 0.0)

    def _transfer_s(self) -> float:
        """What a round's bytes take on the slowest link that is not healed."""
        masked = MASKED_BYTES if self._world.schedule.masked else 0
        return (CYCLE_BYTES + masked) / min(self._world.broker.rates.values(), default=math.inf)

    def _all_count(self) -> bool:
        """Whether a round asks, and waits for, every device that is present."""
        return self._world.schedule.config.goal is None and self._asks_all()

    def _asks_all(self) -> bool:
        config = self._world.schedule.config
        return config.fraction == 1.0 and config.over_select is None
