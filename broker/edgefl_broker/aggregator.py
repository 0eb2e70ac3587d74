"""Aggregator: a RoundCoordinator on a real MQTT link, with its disk and its test set."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from edgefl import auto, masked_fit, profiles
from edgefl.atomic import write_atomically
from edgefl.coordinator import events
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import (
    Answered,
    Commit,
    Erase,
    Evaluate,
    Fenced,
    Finished,
    ReloadedLate,
    ReloadLate,
    SaveAsk,
    SaveAttempt,
    SaveLate,
    SavePaused,
    SaveProfile,
    SaveSuspects,
)
from edgefl.core.plan import Plan
from edgefl.errors import EdgeFLError
from edgefl.federation import make_manifest
from edgefl.history import History, Run, json_pieces
from edgefl.history_files import HistoryFiles
from edgefl.history_record import MOVED
from edgefl.hosting import own_certificate
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.link_host import LinkHost
from edgefl.hosting.reload import Reload
from edgefl.hosting.store import durable
from edgefl.machine import Connected
from edgefl.privacy.ledger import SaveLedger
from edgefl.protocol.round import UNEARNED_ROUNDS
from edgefl.protocol.topics import AGGREGATOR_USER, aggregator_client_id
from edgefl.strategies.checkpoint import pack
from edgefl.strategies.waiting_room import WaitingRoom
from edgefl.transports.events import LinkEvent, Message

from .choice import choice_of, within_budget
from .desk import Desk
from .enrolment import Enrolment
from .forgetting import erase_claims
from .home_assistant import open_home_assistant
from .journal import Journal
from .keys import open_keys
from .masked import masked_terms, open_helpers
from .model_file import load_both
from .outputs import NEWEST, ModelFiles
from .progress import Progress, summary
from .reload import LIVE, reconfigured, with_interval
from .round_rows import KEPT_RECORDS
from .scoring import Scoring
from .store import AggregatorStore, State
from .strategy import open_strategy
from .tags import TagTable
from .unheard import Unheard
from .watcher import open_watcher
from .window import Window

RECEIVE_MAXIMUM = 100  # messages that the broker may send ahead of our acknowledgement
UPDATE_S, PARAM_S = 1e-3, 1e-8  # time for an update, and for each of its params: a high guess for the first round


class Aggregator(LinkHost[events.Event, events.Action]):
    """Everything is checked and opened here; `run` returns when the rounds are done or Stop is posted."""

    machine: RoundCoordinator

    def __init__(self, config: AggregatorConfig, progress: Progress, take_over: bool = False) -> None:
        super().__init__(logging.getLogger("edgefl.aggregator"))
        self._progress = progress
        self.reload: Reload[AggregatorConfig] = Reload(config, LIVE, self.log)
        if warning := own_certificate.check(config.mqtt.tls, AGGREGATOR_USER if config.keys.dir else None):
            self.log.warning("%s", warning)
        self.refusals.user = f"as shipped, it knows the aggregator by the user name {AGGREGATOR_USER!r}"
        spec = config.evaluate.test_data
        config.gate.check(spec is not None, config.evaluate.holdout)
        model, self._test = load_both(config)
        self._folder = Path(config.state_dir)
        self._store = AggregatorStore(self._folder, config.keep_models, config.models_mb * 1e6)
        self._journal = None if config.journal is None else Journal(Path(config.journal))
        self._files = HistoryFiles(self._folder, config.history_mb * 1e6)
        self._model, keep, budget = within_budget(config, model, self._store)
        plan = self._model.plan
        self._scoring = Scoring(self._model, self._test)
        state = self._store.resume(plan.hash, self._model.params, self._files.last(), keep)
        config = self._settled(config, plan)
        rng = random.Random()
        self._keys = open_keys(config.keys, config.federation, self._store.highest)
        self._helpers = open_helpers(config, self._store.highest)
        self.machine = self._make_machine(config, state, rng, take_over=take_over)
        self._unheard = Unheard()
        self._enrolment, self._hears_asks = self._open_enrolment(config), False
        self._outputs = self._open_outputs(config, state)
        self._tags = TagTable(self._store, tested=self._test is not None, most_bytes=config.models_mb * 1e6)
        self._desk = Desk(self._folder, self._store, self._tags, self._strategy_name, self.feed)
        self.window = Window(self.machine)
        self._watcher = open_watcher(config, self._folder, self.window, lambda: self._online)
        self._home_assistant = open_home_assistant(config, self.machine, self.feed)
        self._busy_since_s = time.process_time()
        self._write_outputs(state.params)
        client_id = aggregator_client_id(config.federation)
        self.link = config.mqtt.make_link(
            client_id, self.on_link_event, rng, receive_maximum=RECEIVE_MAXIMUM, is_behind=self.is_behind
        )
        going_on = f"going on at round {state.round}" if state.round > 1 else "starting"
        self.log.info("federation %s, %d params, %s", config.federation, plan.num_params, going_on)
        self.log.info("loss: %s", self._model.loss_line)
        for what, told in (("auto", self._run.auto), ("sparse", budget)):
            if told:
                self.log.info("%s: %s", what, told)

    def _settled(self, config: AggregatorConfig, plan: Plan) -> AggregatorConfig:
        """The settings with what "auto" and their absence stand for; `_run` has them as they are published."""
        config = with_interval(config)
        self._choice = choice = choice_of(config, plan, self._store)
        self._run = Run.of(config, choice)
        config = config if choice is None else auto.apply(config, choice)
        if config.codec.part_bytes == "auto":
            config = config.replace(**{"codec.part_bytes": config.mqtt.limits.part_bytes})
        return config

    def _make_machine(
        self, config: AggregatorConfig, state: State, rng: random.Random, *, take_over: bool
    ) -> RoundCoordinator:  # fmt: skip
        """The coordinator, as the process before this one has left it on disk."""
        plan, rounds = self._model.plan, config.rounds
        manifest = make_manifest(config, config.federation, state.run, plan)
        strategy = open_strategy(
            config, plan, manifest.mask, state, folder=self._folder, journal=self._journal
        )  # fmt: skip
        self._strategy_name = strategy.name
        if manifest.mask.personal:
            self._scoring = Scoring(self._model, None)  # no device uses the personal params that are here
        if not rounds.late_window:
            self._store.drop_late()
        return RoundCoordinator(
            manifest, masked_fit.rounds_of(config), strategy, state.params,
            rng=rng, round=state.round, version=state.version, attempt=state.start,
            update_s=UPDATE_S + PARAM_S * plan.num_params,
            recent=self._store.recent(UNEARNED_ROUNDS), instance=rng.getrandbits(64), take_over=take_over,
            root=config.mqtt.root, gate=config.gate, keys=None if self._keys is None else self._keys.keys,
            admission=masked_fit.admission_of(config), suspects=self._store.suspects(), paused=self._store.paused(),
            room=WaitingRoom(int(config.strategy.spill_mb * 1e6), self._folder), watched=True,
            features=config.features, asked=self._store.asked(),
            masked=masked_terms(config, manifest, self._helpers, self._store),
        )  # fmt: skip

    def _open_outputs(self, config: AggregatorConfig, state: State) -> ModelFiles:
        """The files of models; their skeleton is published with the manifest."""
        labels, columns = (self._test.labels, self._test.columns) if self._test else ((), ())
        outputs = ModelFiles(
            self._folder, self._model, config.federation, state.run, labels=labels, columns=columns
        )  # fmt: skip
        self.machine.announcer.carry(outputs.skeleton)
        return outputs

    @property
    def history(self) -> History:
        """All rounds so far, read from their files: in memory they would grow for months."""
        return History(self.machine.params, list(self._files.records()), self._run)

    def history_json(self) -> Iterator[bytes]:
        """What `history` has, as JSON in pieces."""
        return json_pieces(self._run, self._files.records(), self.machine.params)

    def _open_enrolment(self, config: AggregatorConfig) -> Enrolment | None:
        """What answers devices of a batch; None without keys."""
        if config.keys.dir is None:
            return None
        keys, claims = Path(config.keys.dir), self._folder / "claims"
        return Enrolment(self.machine.topics, config.federation, keys, claims)

    def _handle(self, event: events.Event | LinkEvent) -> None:
        """Requests to be enrolled are no business of the coordinator's."""
        enrolment = self._enrolment
        if isinstance(event, Connected):
            self._hears_asks = False
        if isinstance(event, Message) and enrolment is not None and enrolment.topics.has(event.topic):
            for answer in enrolment.answer(event.topic, event.payload, event.retain):
                self.publish(answer)
            self.done(event)
            return
        super()._handle(event)

    def look_around(self) -> None:
        self._desk.look()
        if self._home_assistant is not None:
            self._home_assistant.look(self.now())
        self.reload.look(self._use)
        if line := self._unheard.look(self.now(), self.machine.rows, self.machine.config.expect):
            self.log.warning("%s", line)
        if self._enrolment is not None and self._enrolment.is_on and self._online and not self._hears_asks:
            self._hears_asks = True
            self.link.subscribe([self._enrolment.topics.any_ask], 1)
        for event in [] if self._keys is None else self._keys.news():
            self.feed(event)
        for read in [] if self._helpers is None else self._helpers.news():
            self.feed(read)

    def _use(self, config: AggregatorConfig) -> None:
        """Settings have changed that can change now; EdgeFLError, with nothing changed."""
        event = reconfigured(config, self._model.plan, self._folder)
        self._run = Run.of(with_interval(config), self._choice)
        self._write_run()
        self._store.models.keep(config.keep_models, config.models_mb * 1e6)
        self._tags.most_bytes = config.models_mb * 1e6
        self._files.keep(config.history_mb * 1e6)
        self.feed(event)

    def run(self) -> None:
        self._desk.look()  # before the first round, which may be the last
        self._watcher.start()
        try:
            super().run()
        finally:
            if self._home_assistant is not None:
                self._home_assistant.close()
            self._progress.close()
            self._watcher.close()
            self._store.close()
            if self._journal is not None:
                self._journal.close()

    def _answer(self) -> None:
        self._store.flush()
        super()._answer()
        self._progress.show(self.machine.snapshot())
        self.window.refresh(self.now())

    def carry_out(self, action: events.Action) -> None:
        match action:
            case Evaluate():
                update_s = self._update_s()
                self.feed(replace(self._scoring.score(action.params), update_s=update_s))
            case Commit():
                state = pack(self._strategy_name, action.state)
                self._store.commit(action.record, action.params, action.drop, state, action.clip)
                durable(self._files.append)(action.record)
                self._watcher.add(action.record)
                durable(self._outputs.follow)(action.record, action.params, self._tags)
                self.log.info("%s", summary(action.record), extra={"round": action.record.round})
                self._busy_since_s = time.process_time()
            case Answered():
                self._desk.answer(action)
            case SaveAttempt() | SaveLate() | SaveAsk() | SaveSuspects() | SavePaused() | SaveProfile() | Erase():
                self._save(action)
            case SaveLedger(ledger):
                self._store.save_ledger(ledger)
            case ReloadLate():
                self.feed(ReloadedLate(self._store.late()))
            case Fenced():
                raise EdgeFLError(action.reason)
            case Finished():
                self.log.info("done: %s; the model is %s", action.reason, self._folder / NEWEST)
                self.stopping = True
            case _:
                self.carry_out_shared(action)

    def _save(self, action: SaveAttempt | SaveLate | SaveAsk | SaveSuspects | SavePaused | SaveProfile | Erase) -> None:
        match action:
            case SaveAttempt(attempt):
                self._store.save_attempt(attempt)
            case SaveLate(update):
                self._store.save_late(update)
            case SaveAsk(saved):
                self._store.save_ask(saved)
            case SaveSuspects(suspects):
                self._store.save_suspects(suspects)
            case SavePaused(paused):
                self._store.save_paused(paused)
            case Erase(device):
                self._store.forget(device)
                durable(self._files.forget)(device)
                durable(erase_claims)(self._folder / "claims", device)
                self._watcher.forget(device)
            case SaveProfile(profile):
                durable(write_atomically)(self._folder / profiles.FILE, profile.to_json())

    def _update_s(self) -> float | None:
        """Processor seconds since the last commit, per update counted since; it sets the devices' pace."""
        counted = self.machine.snapshot().counted
        return (time.process_time() - self._busy_since_s) / counted if counted else None

    @durable
    def _write_run(self) -> None:
        write_atomically(self._folder / "run.json", msgspec.json.format(msgspec.json.encode(self._run)) + b"\n")

    @durable
    def _write_outputs(self, params: np.ndarray) -> None:
        """Mend the files beside the database: after a crash they may be a round behind it."""
        self._files.mend(self._store.recent(KEPT_RECORDS))
        self._write_run()
        self._outputs.begin()
        self._store.write("federation", self.machine.announcer.manifest.federation)
        version, records = self.machine.version, self._store.recent(KEPT_RECORDS)
        made = next((record for record in records if record.state in MOVED and record.version == version), None)
        self._outputs.write(NEWEST, params, version, made.round if made else self.machine.round - 1, made)
        self._outputs.write_best(self._tags)
