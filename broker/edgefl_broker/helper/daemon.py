"""HelperDaemon: a Helper on a real MQTT link, with its disk and keys, and a thread for the sums."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from pathlib import Path

from edgefl.helper.events import Action, Event, Find, Found, JobDone, Open, SaveOpened, SaveState
from edgefl.helper.helper import Helper
from edgefl.helper.noise import Draw
from edgefl.helper.opening import Job
from edgefl.hosting import own_certificate
from edgefl.hosting.link_host import LinkHost
from edgefl.hosting.reload import Reload
from edgefl.privacy import accountant

from .config import HelperConfig
from .keys import KeyFolder
from .store import HelperStore

RECEIVE_MAXIMUM = 100  # messages that the broker may send ahead of our acknowledgement
LIVE = ("least",)  # what a reload changes


class HelperDaemon(LinkHost[Event, Action]):
    """Everything is checked and opened here; `run` returns when Stop is posted."""

    machine: Helper

    def __init__(self, config: HelperConfig) -> None:
        super().__init__(logging.getLogger("edgefl.helper"))
        self.reload: Reload[HelperConfig] = Reload(config, LIVE, self.log)
        if warning := own_certificate.check(config.mqtt.tls, config.user):
            self.log.warning("%s", warning)
        self.refusals.user = f"as `edgefl keys` writes it, it knows this helper by the user name {config.user!r}"
        if config.least.noise:
            accountant.load()  # or every round would be refused
        self._store = HelperStore(Path(config.state_dir))
        try:
            self._keys = KeyFolder(config, self._store.highest)
        except BaseException:
            self._store.close()
            raise
        keys, state = self._keys.keys, self._store.state
        self.machine = Helper(keys, self._keys.roster, config.least, state, root=config.mqtt.root)
        self._failed: BaseException | None = None
        self.link = config.mqtt.make_link(
            config.user, self.on_link_event, random.Random(), receive_maximum=RECEIVE_MAXIMUM, is_behind=self.is_behind
        )
        enrolled = len(self._keys.roster.enrolled)
        self.log.info(
            "helper %s of federation %s, epoch %d of its keys, %d devices enrolled, round %d was the last one opened",
            config.name, config.federation, keys.epoch, enrolled, state.round,
        )  # fmt: skip

    def run(self) -> None:
        for action in self.machine.begin():
            self.carry_out(action)
        try:
            super().run()
        finally:
            self._store.close()

    def look_around(self) -> None:
        if self._failed is not None:
            raise self._failed
        self.reload.look(self._use)
        for event in self._keys.news():
            self.feed(event)

    def _use(self, config: HelperConfig) -> None:
        self.machine.least = config.least

    def carry_out(self, action: Action) -> None:
        match action:
            case Open(job):
                memory = self._store.memory() if job.terms.noise.kind == "banded" else None
                threading.Thread(target=self._open, args=(job, memory), name="opening", daemon=True).start()
            case SaveOpened(state, answer, memory):
                self._store.save(state, answer, memory)
            case SaveState(state):
                self._store.save(state)
            case Find(round):
                self.feed(Found(round, self._store.answer(round)))
            case _:
                self.carry_out_shared(action)

    def _open(self, job: Job, memory: bytes | None) -> None:
        """Add a set's masks up, on a thread of its own: the link and the watchdog are not to wait for it."""
        began, devices = time.monotonic(), sum(map(len, job.groups))
        try:
            result = job.run(Draw(memory, os.urandom))
        except BaseException as error:
            self._failed = error
            return
        self.log.debug("%d seeds in %.2f s", devices, time.monotonic() - began)
        self.post(JobDone(job, result))
