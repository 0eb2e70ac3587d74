"""Liveness, I07: once the faults have stopped, rounds commit, and every present device counts, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .truth import Truth
from .violation import require

if TYPE_CHECKING:
    from .world import World

RECONNECT_S = 90.0  # both ends have noticed, the longest back-off is over, late wills have come
ROUNDS = 4  # deadlines until a round commits: the one that is open may be beyond help


class Liveness:
    """`satisfied` after the healing, or a Violation."""

    def __init__(self, world: World, truth: Truth) -> None:
        self._world, self._truth = world, truth
        self._from = 0  # records before the healing
        self._late: set[tuple[str, int]] = set()  # updates that waited for a model then

    def heal(self) -> None:
        self._from = len(self._truth.records)
        self._late = set(self._world.aggregator.disk.late)

    def satisfied(self) -> bool:
        world, schedule = self._world, self._world.schedule
        assert world.healed_at is not None
        new = self._truth.records[self._from :]
        left = {device.name for device in world.devices if not (device.gone or device.handicap)}
        waited = world.clock.now - world.healed_at
        done = bool(new)
        if len(left) == len(world.devices) or self._asks_all():  # else the drawn devices may have left
            done = any(record.state != "abandoned" for record in new)
            done = done and not self._late & self._world.aggregator.disk.late.keys()
        if self._all_count():
            done = done and left <= {n for r in new for n in [*r.devices, *(device for device, _ in r.folded)]}
        bound = RECONNECT_S + ROUNDS * schedule.round_s
        names = [record.devices for record in new]
        require(done or waited < bound, "I07", "%d s after the faults: %r of %s", waited, names, sorted(left))
        return done

    def _all_count(self) -> bool:
        """Whether a round asks, and waits for, every device that is present."""
        return self._world.schedule.config.goal is None and self._asks_all()

    def _asks_all(self) -> bool:
        config = self._world.schedule.config
        return config.fraction == 1.0 and config.over_select is None
