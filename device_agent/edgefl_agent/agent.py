"""Agent: a DeviceSession on a real device, with its MQTT link, its disk and its training thread."""

from __future__ import annotations

import logging
import os
import random
import time
from pathlib import Path

from edgefl import __version__, codecs
from edgefl.device import events
from edgefl.device.events import (
    CancelTraining,
    DropUpdate,
    KeepBase,
    KeepModel,
    KeepSkeleton,
    MarkCounted,
    Pause,
    SavePlan,
    SaveSeen,
    SaveSpent,
    SaveUpdate,
    StartTraining,
)
from edgefl.device.model.delivery import Wanted
from edgefl.device.owner.policy import OwnersWord
from edgefl.device.session import DeviceSession
from edgefl.device.status import REASON
from edgefl.errors import StoreError, UsageError
from edgefl.hosting import own_certificate
from edgefl.hosting.link_host import LONGEST_SLEEP_S, LinkHost
from edgefl.hosting.reload import Reload
from edgefl.machine import Action, Connected, Disconnected, Publish, Received
from edgefl.protocol.messages import STARTS, Status, encode
from edgefl.protocol.topics import Topics, check_device_id, is_aggregators
from edgefl.protocol.trouble import Trouble

from .base_file import BaseFile
from .config import LIVE, AgentConfig
from .data_watch import DataWatch
from .first_look import FirstLook
from .governor import Governor
from .keys import OPEN, load_keys, root_of
from .last_manifest import LastManifest
from .ledger import Entry
from .misfit import Misfit, user_name
from .model_config import ModelConfig
from .plans import Offers, PlanFolder
from .source import Source, Unread
from .store import AgentStore
from .thermometer import Thermometer
from .worker import Worker

BUSY_LOOK_S = 0.25


class Agent(LinkHost[events.Event, events.Action]):
    """Everything is checked and opened here; `run` returns after `post(Stop())`. Raises EdgeFLErrors."""

    machine: DeviceSession

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(logging.getLogger("edgefl.agent"))
        self.reload: Reload[AgentConfig] = Reload(config, LIVE, self.log)
        self.device = device = check_device_id(config.device_id)
        topics = Topics(config.federation, config.mqtt.root)
        self._status_topic = topics.status(device)
        self._misfit = Misfit(topics, device)
        self.refusals.user = user_name(device)
        if is_aggregators(config.mqtt.client_id or device):
            raise UsageError(f"[mqtt] client_id {config.mqtt.client_id!r} is an aggregator's: choose another")
        if warning := own_certificate.check(config.mqtt.tls, device if config.keys.dir else None):
            self.log.warning("%s", warning)
        for codec in config.plugins.codecs:
            codecs.offer(codec)
        source = Unread() if config.model.only else Source(config.data.source)
        self._first_look = FirstLook(source)
        unable, num_examples = self._first_look.look(self.now()), self._first_look.num_examples
        self._store = AgentStore(Path(config.state_dir), config.ledger_months)
        self._updates = topics.update(device, 0, 0).removesuffix("0/0")
        self.boot = self._store.count_start() * STARTS
        self._pause_file, self._paused = config.pause_file, Trouble("", "")
        self._governor = Governor(config.limits.governor(config.state_dir))
        self._thermometer = Thermometer()
        policy = config.policy.policy(keys=config.keys.dir is not None)
        self._base_file = BaseFile(Path(config.state_dir), config.limits.model_bytes())
        self._plans = PlanFolder(Path(config.state_dir))
        self._offers = Offers(self._plans)
        self._last_manifest = LastManifest(Path(config.state_dir))
        self._approved = self._plans.approved()
        rng = random.Random()
        self._root = root_of(config.keys)
        keys = load_keys(config.keys, config.federation, self._store.load_seen(self._root) if self._root else None)
        self.machine = DeviceSession(
            device, config.federation, num_examples=num_examples, rng=rng, outbox=self._store.load(),
            in_model=self._store.load_in_model(), limits=config.limits.budget(), spent=self._store.load_spent(),
            owner=OwnersWord(policy, self._approved, met=bool(self._plans.all())),
            max_model_bytes=config.limits.model_bytes(), root=config.mqtt.root, keys=keys,
            wanted=self._wanted(config), base=self._base_file.load(),
        )  # fmt: skip
        self.machine.status.agent = __version__
        options = {"keep": self._keeper.keep_own} if config.model.personal_file else {}
        self._worker = Worker(
            device, source, max_arena_bytes=config.limits.arena_bytes(), nice=config.limits.nice,
            cpu_percent=config.limits.cpu_percent, threads=config.limits.threads,
            load_slot=self._store.load_slot, post=self.post, policy=policy, **options,
        )  # fmt: skip
        self._data_watch = DataWatch(source, self._worker)
        self.link = config.mqtt.make_link(device, self.on_link_event, rng, will=self._will())
        self.log.info("device %s, federation %s, %d examples", device, config.federation, num_examples)
        if keys is None:
            self.log.warning("%s", OPEN)
        if unable is not None:
            self.feed(unable)

    def _wanted(self, config: AgentConfig) -> Wanted | None:
        """What the owner wants of models as files, if that is anything."""
        if config.model == ModelConfig():
            return None
        from .model_keeper import ModelKeeper

        self._keeper = ModelKeeper(config.model, Path(config.state_dir), self.feed)
        return self._keeper.wanted()

    def run(self) -> None:
        try:
            self.look_around()
            super().run()
        finally:
            self._worker.close()
            self._store.close()

    @property
    def look_s(self) -> float:
        """While it trains the owner's off switch is looked at more often, so that training stops within a second."""
        return BUSY_LOOK_S if self._worker.busy else LONGEST_SLEEP_S

    def look_around(self) -> None:
        """Look at the data, at the owner's code, and at the owner's off switch."""
        if (unable := self._first_look.look(self.now())) is not None:
            self.feed(unable)
        if not self.machine.status.sits_out:  # a device whose byte budget is spent hears nothing, and knows why
            self._carry_out_all(self._misfit.look(self.now()))
        machine = self.machine
        if (news := self._data_watch.news(self.now(), machine.data_stamp, wanted=machine.wants_news)) is not None:
            self.feed(news)
        if (noticed := self._data_watch.notice(self.now())) is not None:
            self.feed(noticed)
        if (hung := self._worker.look(self.now())) is not None:
            self.feed(hung)
        self._thermometer.look(self.now())
        self.machine.status.celsius = self._thermometer.celsius
        self._offers.look(self.now())
        self._last_manifest.look(self.machine.manifest, self.now())
        if (approved := self._plans.approved()) != self._approved:
            self._approved = approved
            self.feed(events.Approved(approved))
        self.reload.look(self._use)
        self._look_at_limits()

    def _use(self, config: AgentConfig) -> None:
        """The owner has changed settings that can change now."""
        self._pause_file = config.pause_file
        wanted = config.limits.governor(config.state_dir)
        if wanted != self._governor.wanted:  # a new one pauses the device until its first reading
            self._governor = Governor(wanted)
        self._worker.set_cpu_percent(config.limits.cpu_percent)

    def _look_at_limits(self) -> None:
        """The owner's off switch, and then the limits of power, heat, link, disk and memory."""
        paused = self._governor.look(self.now()) or Trouble("", "")
        if self._pause_file is not None and os.path.exists(self._pause_file):
            paused = Trouble("", f"{self._pause_file} exists")
        if paused == self._paused:
            return
        if paused.code != self._paused.code or not (paused.text and self._paused.text):
            self.log.info("%s", f"paused: {paused.text}" if paused.text else "not paused any more")
        self._paused = paused
        self.feed(Pause(paused.text, paused.code))
        if paused.text:
            self._worker.release()

    def _carry_out_all(self, actions: list[Action]) -> None:
        for action in actions:
            self.carry_out_shared(action)

    def next_will(self) -> None:
        self.link.set_will(*self._will())

    def _will(self) -> tuple[str, bytes]:
        return self._status_topic, encode(Status("lost", self.boot))

    def last_words(self, error: BaseException) -> Publish | None:
        """A disk that fails ends the agent. An operator should see more than that it is lost."""
        if not isinstance(error, StoreError):
            return None
        why = Trouble.of(error)
        return Publish(
            self._status_topic, encode(Status("trouble", self.boot, 0, why.text[:REASON], why.code)), retain=True
        )

    def feed(self, event: events.Event) -> None:
        match event:
            case Connected():
                self._misfit.connected(self.protocol, self.now())
            case Disconnected():
                self._misfit.disconnected()
            case Received():
                self._carry_out_all(self._misfit.hear(event.topic))
                if event.topic == self._status_topic:
                    return  # our own, read back
        super().feed(event)
        self.link.calm(self.machine.calm_s)

    def publish(self, action: Publish) -> None:
        if action.topic.startswith(self._updates):
            self._store.ledger.published(len(action.payload))
        super().publish(action)

    def _entry(self, action: SaveUpdate) -> Entry | None:
        """What the ledger says of an update."""
        unix_s = self.machine.clock.at(self.now())
        if action.origin is None:
            return None
        return Entry.of(
            action.outbox, action.origin, unix_s or time.time(), trusted=unix_s is not None, root=self._root
        )

    def _save_plan(self, action: SavePlan) -> None:
        if not action.approved:
            self._offers.offer(action.plan, action.words)
        else:
            self._plans.save(action.plan, action.words)
            self._plans.approve(action.plan)
            self._approved |= {action.plan}

    def _keep(self, action: KeepBase | KeepModel | KeepSkeleton) -> None:
        if isinstance(action, KeepBase):
            self._base_file.keep(action)
        else:
            self._keeper.keep(action)

    def carry_out(self, action: events.Action) -> None:
        match action:
            case StartTraining():
                self._worker.start(action.job)
            case CancelTraining():
                self._worker.cancel()
            case SaveUpdate():
                self._store.save(action.outbox, action.slots, self._entry(action))
            case MarkCounted():
                self._store.mark_counted(action.attempt)
            case DropUpdate():
                self._store.drop(action.applied, action.receipt)
            case SaveSpent():
                self._store.save_spent(action.spent)
            case SavePlan():
                self._save_plan(action)
            case SaveSeen():
                self._store.save_seen(action.seen)
            case KeepBase() | KeepModel() | KeepSkeleton():
                self._keep(action)
            case _:
                self.carry_out_shared(action)
