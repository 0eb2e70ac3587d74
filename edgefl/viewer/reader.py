"""Reader: keeps a Picture up to date from an MQTT broker. The only I/O of a viewer: it publishes nothing."""

from __future__ import annotations

import queue
import random
import secrets
import time

from msgspec import structs

from ..errors import EdgeFLError, UsageError
from ..protocol.topics import VIEWER, Topics
from ..transports.mqtt import Down, LinkEvent, Message, Refused, Up
from .config import ViewerConfig
from .picture import Picture, read_root

QUIET_S = 2.0  # a broker has sent all that is retained when nothing has come for so long
RECONNECT_S = 15.0


class Reader:
    """A context manager: connected within it. `rows`: the devices too, not only the summary. UsageError."""

    def __init__(self, config: ViewerConfig, *, rows: bool = True) -> None:
        self.topics = Topics(config.federation, config.mqtt.root)
        self.picture = Picture(config.federation, self.topics, read_root(config.keys.dir), wants_rows=rows)
        self._rows, self._events = rows, queue.SimpleQueue[LinkEvent]()
        self._why_down, self._refused, self._up = "", "", False
        self._asked_pages = False
        mqtt = structs.replace(
            config.mqtt, session_expiry_s=0, reconnect_cap_s=min(RECONNECT_S, config.mqtt.reconnect_cap_s)
        )
        name = f"{VIEWER}{secrets.token_hex(6)}"
        self._link = mqtt.make_link(name, self._events.put, random.Random())
        self._where = mqtt.url.rpartition("@")[2].rpartition("//")[2]

    def __enter__(self) -> Reader:
        self._link.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._link.stop(0.5)

    @property
    def connected(self) -> bool:
        return self._up

    @property
    def lost(self) -> str:
        """Why there is no connection; "" while there is one."""
        return "" if self._up else self._why_down or "connecting"

    def load(self, wait_s: float) -> Picture:
        """All that the broker has retained. EdgeFLError says why there is no summary, and what to do."""
        until = time.monotonic() + wait_s
        quiet_at: float | None = None  # since when nothing has come
        while not self.picture.complete and (now := time.monotonic()) < until:
            if quiet_at is not None and now >= quiet_at + QUIET_S:
                break
            if self.turn(min(until - now, 0.25)):
                quiet_at = None
            elif self._up and quiet_at is None:
                quiet_at = now
        if self.picture.summary is None:
            raise self._missing()
        return self.picture

    def turn(self, wait_s: float) -> bool:
        """Process one event, if one comes in time; whether one came."""
        try:
            event = self._events.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            return False
        match event:
            case Up():
                self._up, self._asked_pages = True, False
                topics = self.topics
                self._link.subscribe([topics.summary, topics.aggregator, topics.manifest], 1)
            case Down():
                self._up, self._why_down = False, event.reason
            case Refused():
                self._refused = event.reason
            case Message():
                self._link.ack(event.handle)
                self.picture.hear(event.topic, event.payload)
                if self._rows and self.picture.summary is not None and not self._asked_pages:
                    self._asked_pages = True  # after the summary, which has the certificate that pages need
                    self._link.subscribe([self.topics.any_page], 1)
        return True

    def _missing(self) -> EdgeFLError:
        """Why no summary has come."""
        picture, topic, base = self.picture, self.topics.summary, self.topics.base
        if not self._up and not (picture.has_manifest or picture.claim):
            return EdgeFLError(
                f"can't reach the MQTT broker at {self._where} ({self.lost}): check its address and port"
            )
        if picture.why_not:
            return EdgeFLError(f"{picture.why_not}: compare root.pub in [keys] dir with the federation's")
        if self._refused:
            return UsageError(
                f"the broker lets this client not read {topic} ({self._refused}): enrol it with `edgefl keys add DIR "
                f"NAME --viewer`, and bring the new acl to the broker"
            )
        if picture.claim is not None and picture.claim.state == "released":
            return EdgeFLError(
                f"the aggregator of {base} has stopped, and has left no summary: start it, or update it if it is older "
                "than this program"
            )
        if picture.claim is not None or picture.has_manifest:
            return EdgeFLError(
                f"an aggregator has {base}, and no summary of it can be read: it is older than this program, or the "
                f"broker's ACL does not let it write, or us read, {topic}; its log says if it may not write there"
            )
        return EdgeFLError(
            f"nothing of {base} is on the broker at {self._where}: start the aggregator, check the federation's name "
            f"and [mqtt] root, or let this client read {topic} in the broker's ACL"
        )
