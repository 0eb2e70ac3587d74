"""HelperHost: a helper of masked rounds in a simulated fleet, with its disk."""

from __future__ import annotations

import numpy as np

from ...core.seeds import derived_seed
from ...helper import events
from ...helper.events import Find, Found, JobDone, Keys, Open, SaveOpened, SaveState
from ...helper.helper import Helper
from ...helper.least import Least
from ...helper.noise import Draw
from ...helper.state import State
from ...machine import Connected
from ...trust.roster import Roster
from .fleet_host import FleetHost, Ground

SECONDS_PER_DEVICE = 0.002  # of opening a set


def name_of(helper: str) -> str:
    """Its MQTT client id."""
    return f"helper-{helper}"


class HelperHost(FleetHost[events.Event, events.Action]):
    """A helper that opens what its machine lets be opened."""

    machine: Helper

    def __init__(self, fleet: Ground, keys: Keys, roster: Roster, least: Least) -> None:
        super().__init__(fleet, name_of(keys.name))
        self._keys, self._roster, self._least = keys, roster, least
        self.state = State()
        self.answers: dict[int, bytes] = {}
        self._memory: bytes | None = None  # of correlated noise
        self._drawn = 0

    def power_on(self) -> None:
        self.powered = True
        self.boot += 1
        self.machine = Helper(self._keys, self._roster, self._least, self.state)
        for action in self.machine.begin():
            self.carry_out(action)
        self.fleet.broker.connect(self.name)
        self.feed(Connected(boot=self.boot))

    def carry_out(self, action: events.Action) -> None:
        match action:
            case Open(job):
                boot, result = self.boot, job.run(self._draw())
                seconds = SECONDS_PER_DEVICE * sum(map(len, job.groups))
                self.clock.after(seconds, lambda: self.feed(JobDone(job, result)) if self.boot == boot else None)
            case SaveOpened(state, answer, memory):
                self._save(state)
                self._memory = memory or self._memory
                self.answers[state.round] = answer
            case SaveState(state):
                self._save(state)
            case Find(round):
                self.feed(Found(round, self.answers.get(round)))
            case _:
                self.carry_out_shared(action)

    def _save(self, state: State) -> None:
        kept = {opened.round for opened in state.opened}
        self.state, self.answers = state, {round: blob for round, blob in self.answers.items() if round in kept}

    def _draw(self) -> Draw:
        """What draws noise: each set has its own, and a run that is repeated has the same."""
        self._drawn += 1
        seed = derived_seed("noise", self._keys.box_private.hex(), self._drawn)
        return Draw(self._memory, np.random.default_rng(seed).bytes)
