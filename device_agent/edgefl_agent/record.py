"""`edgefl-agent record`: keeps what sensors publish on a local MQTT broker, as rows to learn from.

It only subscribes, and connects with a client id of its own, so it runs beside the agent. While the disk takes nothing,
rows wait, the oldest go, and the log says so.
"""

from __future__ import annotations

import argparse
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgefl.errors import StoreError
from edgefl.hosting import command, daemon
from edgefl.plural import plural
from edgefl.protocol.topics import check_device_id
from edgefl.settings import files
from edgefl.transports.events import LinkEvent, Message, Refused, Up

from .commands import add_config
from .config import AgentConfig
from .record_config import RecordConfig
from .ring import Ring
from .sampler import Sampler

MOST_TOGETHER = 1000  # rows that wait for a commit
SILENT_S = 60.0  # without a value, before the log says so
SAY_AGAIN_S = 600.0
log = logging.getLogger("edgefl.agent.record")


def main(words: list[str]) -> int:
    """Exit code 0 after a clean stop, 1 failed, 2 wrong use."""
    options = make_parser().parse_args(words)
    return command.run(options, lambda: run(options))


def make_parser() -> command.Parser:
    parser = command.Parser(
        prog="edgefl-agent record",
        description="Record what sensors publish on an MQTT broker, as [record] of the configuration says, in a ring "
        "that the data SPEC ring:FILE reads while it is written.",
        example="edgefl-agent record --config /etc/edgefl/agent.toml",
    )
    add = parser.add_argument_group("what to record").add_argument
    add_config(add, "record.every_s=0.5")
    command.add_common_options(parser, level="info")
    return parser


def run(options: argparse.Namespace) -> None:
    """Record until SIGTERM or SIGINT; EdgeFLErrors."""
    command.check_sets(options.set)
    config = files.load(options.config, AgentConfig, options.set)
    recorder = Recorder(config.record, check_device_id(config.device_id))
    with daemon.on_termination(recorder.stop):
        recorder.run()


class Recorder:
    """`run` returns after `stop()`, which any thread may call. The time of day goes into the rows, so `clock` tells it;
    how old a value is does not depend on that."""

    def __init__(self, config: RecordConfig, device: str, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._sampler = Sampler(config.sources(), config.stale_s)
        self._lock = threading.Lock()  # guards sampler and ring's waiting rows: the link has a thread of its own
        self._wake, self._stopping = threading.Event(), False
        self._heard_at = time.monotonic()
        self._say_at = 0.0
        self._refused = False  # by the disk, the last time
        self._ring = Ring(Path(config.file), list(config.columns), config.max_rows, int(config.max_mb * 1e6))
        self._link = config.mqtt().make_link(f"{device}-recorder", self._on_link, random.Random())

    def run(self) -> None:
        config = self._config
        log.info("recording %d columns to %s", len(config.columns), config.file)
        self._link.start()
        commit_at = time.monotonic() + config.commit_s
        try:
            while not self._stopping:
                self._wake.wait(min(config.every_s or config.commit_s, config.commit_s))
                self._wake.clear()
                now = time.monotonic()
                if config.every_s:
                    self._sample(now)
                if now >= commit_at or (self._ring.waiting >= MOST_TOGETHER and not self._refused):
                    self._commit(now)
                    commit_at = now + config.commit_s
                self._look(now)
        finally:
            self._link.stop(0.0)
            self._commit(time.monotonic())
            self._ring.close()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def _on_link(self, event: LinkEvent) -> None:
        if isinstance(event, Up):
            self._link.subscribe(self._sampler.topics, qos=0)
        elif isinstance(event, Refused) and event.fatal:
            log.error("the sensors' broker: %s", event.reason)
        elif isinstance(event, Message):
            now = time.monotonic()
            with self._lock:
                if self._sampler.hear(event.topic, event.payload, now):
                    self._heard_at = now
                    if not self._config.every_s:
                        self._add_row(now)
            if self._ring.waiting >= MOST_TOGETHER and not self._refused:
                self._wake.set()

    def _sample(self, now: float) -> None:
        with self._lock:
            self._add_row(now)

    def _add_row(self, now: float) -> None:
        if (row := self._sampler.row(now)) is not None:
            self._ring.add(self._clock(), row)

    def _commit(self, now: float) -> None:
        try:
            with self._lock:
                self._ring.commit()
            self._refused = False
        except StoreError as error:
            self._refused = True  # each try writes all that waits: the next one comes after commit_s
            self._say(now, f"{error}; {self._ring.waiting} rows wait, {self._ring.lost} are lost")

    def _look(self, now: float) -> None:
        """Whether values come at all."""
        if now >= self._heard_at + SILENT_S:
            unread = self._sampler.unread
            also = f", but {plural(unread, 'message')} without one" if unread else ""
            self._say(now, f"no value for {now - self._heard_at:.0f} s{also}: check [record] columns and the broker")

    def _say(self, now: float, text: str) -> None:
        if now >= self._say_at:
            self._say_at = now + SAY_AGAIN_S
            with suppress(Exception):  # a disk that takes no row may take no line of the log either
                log.warning("%s", text)
