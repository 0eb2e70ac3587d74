"""Enrolment: requests of devices that were flashed from one image are written down, and the operator's approvals handed
on (edgefl/protocol/enrol.py). The aggregator decides nothing: it has no key that could enrol a device.

    KEYS/batches.json         the open batches; `edgefl keys batch` writes it
    KEYS/approved/ID.json     approvals, sealed by the root; `edgefl keys approve` writes them
    STATE_DIR/claims/ID.json  requests, for `edgefl keys claims`: a line with the batch, then the message

A batch has as many requests as it may enrol devices, and `MARGIN` more, and a few are written in a second: a token
that is stolen neither fills the disk nor keeps the aggregator from its rounds. A device that gets no answer asks again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgefl.atomic import write_atomically
from edgefl.errors import ProtocolError
from edgefl.machine import Publish
from edgefl.protocol.enrol import APPROVED, BATCHES, LIMIT, Answer, Ask, Batch, EnrolTopics, read, shown
from edgefl.protocol.topics import BATCH, Topics

MARGIN = 20
WRITES_PER_S, WRITES_AT_ONCE = 2.0, 50.0  # each waits for the disk
RECOUNT_S = 10.0  # between two counts of the files of a batch that is full: the operator may have removed some
_WAITING = msgspec.json.encode(Answer("waiting"))
log = logging.getLogger("edgefl.aggregator")


class Enrolment:
    """`keys` is the folder of the aggregator's keys, `claims` the one of requests."""

    def __init__(
        self, topics: Topics, federation: str, keys: Path, claims: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.topics = EnrolTopics(topics)
        self._federation, self._keys, self._claims = federation, keys, claims
        self._clock, self._writes, self._filled_s = clock, WRITES_AT_ONCE, clock()
        self._counts: dict[str, tuple[int, float]] = {}  # batch -> requests that are written down, counted when

    @property
    def is_on(self) -> bool:
        """Whether there has ever been a batch."""
        return (self._keys / BATCHES).exists()

    def answer(self, topic: str, payload: bytes, retained: bool) -> list[Publish]:
        """What a request is answered. One that violates the protocol is a warning."""
        try:
            batch, id = self.topics.asked(topic)
            if retained:
                raise ProtocolError("a retained request: dropped")
            if not payload:
                return []
            told = self._approval(id) or self._consider(batch, id, payload)
        except (ProtocolError, OSError) as error:
            log.warning("%s: %s", topic[:200], error, extra={"kind": "enrolment"})
            return []
        return [Publish(self.topics.answer(batch, id), told)] if told else []

    def _approval(self, id: str) -> bytes:
        path = self._keys / APPROVED / f"{id}.json"
        try:
            with open(path, "rb") as file:
                return file.read(LIMIT)
        except FileNotFoundError:
            return b""

    def _consider(self, batch: str, id: str, payload: bytes) -> bytes:
        """Write the request down, if its batch is open and has room. Empty: too many are being written."""
        ask = read(Ask, payload)
        if ask.id != id:
            raise ProtocolError("a request of other keys than its client id names: dropped")
        ask.check(self._federation)
        known = self._batches().get(batch)
        if known is None or time.time() >= known.until:
            return _refused(f"{batch} enrols no more devices: ask the operator for an image of an open batch")
        path = self._claims / f"{id}.json"
        line = batch.encode() + b"\n" + payload
        is_new = not path.exists()
        if not is_new and path.read_bytes() == line:
            return _WAITING
        if is_new and self._is_full(batch, known.count + MARGIN):
            return _refused(f"{batch} has too many requests already: the operator has to look at them")
        return self._write(batch, ask, line, is_new) if self._may_write() else b""

    def _write(self, batch: str, ask: Ask, line: bytes, is_new: bool) -> bytes:
        self._claims.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self._claims / f"{ask.id}.json", line, mode=0o600)
        if is_new:
            count, at = self._counts[batch]
            self._counts[batch] = (count + 1, at)
            log.info("a device of %s asks to be enrolled as %s, with the id %s", batch, ask.name, shown(ask.id))
        return _WAITING

    def _may_write(self) -> bool:
        now = self._clock()
        self._writes = min(WRITES_AT_ONCE, self._writes + (now - self._filled_s) * WRITES_PER_S)
        self._filled_s = now
        if self._writes < 1.0:
            return False
        self._writes -= 1.0
        return True

    def _is_full(self, batch: str, most: int) -> bool:
        """Whether the batch has that many requests. Their files are counted seldom: there may be a million."""
        count, at = self._counts.get(batch, (most, -RECOUNT_S))
        now = self._clock()
        if count >= most and now - at >= RECOUNT_S:
            count = self._asked_of(batch)
            self._counts[batch] = (count, now)
        return count >= most

    def _batches(self) -> dict[str, Batch]:
        try:
            return msgspec.json.decode((self._keys / BATCHES).read_bytes(), type=dict[str, Batch])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"{self._keys / BATCHES} can't be read ({error}): copy it again") from None

    def _asked_of(self, batch: str) -> int:
        """How many requests of the batch are written down."""
        head, found = batch.encode() + b"\n", 0
        for path in self._claims.glob(f"{BATCH}*.json"):
            with open(path, "rb") as file:
                found += file.read(len(head)) == head
        return found


def _refused(why: str) -> bytes:
    return msgspec.json.encode(Answer("refused", why))
