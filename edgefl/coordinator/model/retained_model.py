"""RetainedModel: the payloads of model versions as they lie on the MQTT broker. No I/O. Part of Announcer.

Each payload lies in a slot, one retained message a part. A broker keeps some memory for each retained topic that it has
ever seen, so slots are reused: however many versions there are, there are at most `SLOTS` x parts topics.

A topic that no round needs is *superfluous*, and is cleared: the slot of a payload that a newer version made useless,
and the last parts of a slot whose new payload is shorter than the one before. An aggregator that dies, or loses its
connection, may leave such topics behind. So a clear is repeated at each connection until the broker has acknowledged
it, and the first connection of an aggregator clears all topics of all slots that it does not use.

That may be tens of thousands of topics, and receipts and rounds must not wait for them. So `AT_ONCE` clears are handed
out at a time, and the next ones when the broker has acknowledged those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ...machine import Publish
from ...protocol.envelope import Kind
from ...protocol.manifest import Manifest
from ...protocol.parts import Splitter
from ...protocol.topics import Topics
from ..events import Action
from .downlink import SLOTS, Payload

AT_ONCE = 50


class RetainedModel:
    """The slots of one federation."""

    def __init__(self, topics: Topics, manifest: Manifest, federation_hash: int) -> None:
        self._part_bytes = manifest.part_bytes
        self._topics = topics
        self._federation = federation_hash
        self._parts: dict[int, int] = {}  # slot -> parts of the payload that lies there
        self._superfluous: dict[str, int] = {}  # topic -> token of the clear that is under way; 0: none is
        self._batch: list[str] = []  # the topics whose clears are under way
        self._token = 0

    def put(self, payloads: Iterable[Payload], *, again: bool = False) -> list[Action]:
        """Publish each payload whose slot is not in use; `again`: publish all, since the broker may have lost them."""
        return [part for payload in payloads if again or payload.slot not in self._parts for part in self._put(payload)]

    def split_at(self, part_bytes: int) -> None:
        """From the next payload on, a part has this length."""
        self._part_bytes = part_bytes

    def _put(self, payload: Payload) -> Iterator[Publish]:
        splitter = Splitter(
            payload.blob, self._part_bytes, kind=Kind.MODEL, codec=payload.codec, federation=self._federation, round=0,
            version=payload.version,
        )  # fmt: skip
        before, self._parts[payload.slot] = self._parts.get(payload.slot, 0), splitter.parts
        for part in range(splitter.parts):
            topic = self._topics.model(payload.slot, part)
            self._superfluous.pop(topic, None)
            yield Publish(topic, splitter.part(part), retain=True)
        self._mark(payload.slot, range(splitter.parts, before))

    def _mark(self, slot: int, parts: range) -> None:
        self._superfluous.update((self._topics.model(slot, part), 0) for part in parts)

    def keep(self, payloads: Iterable[Payload]) -> list[Action]:
        """Clear all slots that hold none of these payloads."""
        needed = {payload.slot for payload in payloads}
        for slot in [slot for slot in self._parts if slot not in needed]:
            self._mark(slot, range(self._parts.pop(slot)))
        return self._next()

    def sweep(self, longest: int) -> None:
        """Have the next `keep` clear what an earlier aggregator may have left, in payloads of up to `longest` bytes."""
        for slot in range(SLOTS):
            self.sweep_slot(slot, longest)

    def sweep_slot(self, slot: int, longest: int) -> None:
        """The same for one slot."""
        self._mark(slot, range(self._parts.get(slot, 0), -(-longest // self._part_bytes)))

    def reconnected(self) -> None:
        """Nobody knows which clears of the last connection have arrived: the next `keep` repeats them."""
        for topic in self._batch:
            if topic in self._superfluous:
                self._superfluous[topic] = 0
        self._batch = []

    def on_sent(self, token: int, ok: bool) -> list[Action]:
        """The broker has acknowledged or refused the clears that were handed out; refused ones are repeated later."""
        if token != self._token or not self._batch:
            return []
        if not ok:
            self.reconnected()
            return []
        for topic in self._batch:
            if self._superfluous.get(topic) == token:  # else a payload has been put there since
                del self._superfluous[topic]
        self._batch = []
        return self._next()

    def _next(self) -> list[Action]:
        """The next clears. Brokers acknowledge messages in order, so the last one's acknowledgement stands for all."""
        if self._batch or not self._superfluous:
            return []
        self._token += 1
        self._batch = list(islice(self._superfluous, AT_ONCE))
        self._superfluous.update(dict.fromkeys(self._batch, self._token))
        *topics, last = self._batch
        return [
            *(Publish(topic, b"", retain=True) for topic in topics),
            Publish(last, b"", retain=True, token=self._token),
        ]
