"""A fleet that replays one ready-made update for any number of devices, over raw MQTT 3.1.1 on one connection.

An envelope does not say whose it is (the topic does), so every device's parts are the same bytes. Nothing is trained,
stored or repeated: the reader is measured, not the sender.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from edgefl.protocol.envelope import Kind, federation_hash
from edgefl.protocol.inbox import Inbox, Missing
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import RETAINED_LIMIT, Status, decode, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics

STALLED_S = 60.0
CONNECT = b"\x10%c\x00\x04MQTT\x04\x02\x00\x00\x00%c%b"  # clean session, no keep-alive
CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9


def varlen(n: int) -> bytes:
    """MQTT's variable byte integer (MQTT 3.1.1, section 2.2.3)."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


class RawMqtt:
    """One MQTT 3.1.1 connection: QoS 1 out, whose acknowledgements are counted, and QoS 0 in."""

    def __init__(self, port: int, client_id: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._mid = 0
        self.acknowledged = 0
        name = client_id.encode()
        self._socket.sendall(CONNECT % (12 + len(name), len(name), name))
        self._expect(CONNACK)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        name = topic.encode()
        self._mid = self._mid % 65535 + 1
        head = len(name).to_bytes(2, "big") + name + self._mid.to_bytes(2, "big")
        first = b"\x33" if retain else b"\x32"
        self._socket.sendall(b"".join((first, varlen(len(head) + len(payload)), head, payload)))

    def subscribe(self, topic: str) -> None:
        name = topic.encode()
        body = b"\x00\x01" + len(name).to_bytes(2, "big") + name + b"\x00"
        self._socket.sendall(b"\x82" + varlen(len(body)) + body)

    def messages(self, patience_s: float) -> Iterator[tuple[str, bytes]]:
        """(topic, payload) of what has come in the meantime; waits at most `patience_s` for something."""
        if not select.select([self._socket], [], [], patience_s)[0]:
            return
        self._buffer += self._socket.recv(1 << 20)
        for kind, body in self._packets():
            if kind == PUBACK:
                self.acknowledged += 1
            elif kind == PUBLISH:
                end = 2 + int.from_bytes(body[:2], "big")
                yield body[2:end].decode(), body[end:]

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        """The whole packets in the buffer, their kind and what follows the fixed header."""
        buffer, at = self._buffer, 0
        while len(buffer) >= at + 2:
            length, shift, start = 0, 0, at + 1
            while start < len(buffer):
                length |= (buffer[start] & 127) << shift
                shift, start = shift + 7, start + 1
                if not buffer[start - 1] & 128:
                    break
            else:
                break
            if len(buffer) < start + length:
                break
            kind, body = buffer[at] >> 4, bytes(buffer[start : start + length])
            at = start + length
            yield kind, body
        del buffer[:at]

    def _expect(self, wanted: int) -> None:
        while True:
            self._buffer += self._socket.recv(4096)
            if any(kind == wanted for kind, _ in self._packets()):
                return

    def close(self) -> None:
        self._socket.close()


class Fleet:
    """Devices of one federation; `blob` is what each of them reports in each round."""

    def __init__(self, port: int, federation: str, blob: bytes) -> None:
        self.mqtt = RawMqtt(port, f"fleet-{federation}"[:23])
        self.topics = Topics(federation)
        self.manifest: Manifest | None = None
        self.round: Round | None = None
        self._blob = blob
        for topic in (self.topics.manifest, self.topics.round, self.topics.inbox("+")):
            self.mqtt.subscribe(topic)

    def appear(self, devices: list[str]) -> None:
        """All of them show that they are there."""
        for device in devices:
            self.mqtt.publish(self.topics.status(device), encode(Status("ready", 1, 100)), retain=True)

    def await_round(self, number: int) -> None:
        """Until round `number` is open."""
        until = time.monotonic() + STALLED_S
        while self.round is None or self.manifest is None or self.round.round < number:
            if time.monotonic() > until:
                raise SystemExit(f"round {number} did not open in {STALLED_S:.0f} s")
            self._poll(lambda device, message: None)

    def report(self, devices: list[str], window: int) -> float:
        """Each device's update in the open round, `window` of them at a time; seconds until all are counted."""
        assert self.round is not None
        parts = self._parts()
        unasked = range(min(len(parts), self.round.unasked))
        waiting, under_way = iter(devices), set[str]()

        def start() -> None:
            for device in islice(waiting, max(0, window - len(under_way))):
                under_way.add(device)
                send(device, unasked)

        def send(device: str, which: Iterable[int]) -> None:
            for part in which:
                self.mqtt.publish(self.topics.update(device, self.round.round, part), parts[part])

        def on_inbox(device: str, message: object) -> None:
            if isinstance(message, Missing):
                send(device, message.parts)
            else:
                assert message.outcome == "counted", message
                under_way.discard(device)

        began = time.monotonic()
        start()
        heard = began
        while under_way:
            if self._poll(on_inbox):
                heard = time.monotonic()
            elif time.monotonic() > heard + STALLED_S:
                raise SystemExit(f"{len(under_way)} updates were not counted in {STALLED_S:.0f} s")
            start()
        return time.monotonic() - began

    def report_to(self, taken: int, topics: Topics, devices: list[str], window: int) -> float:
        """The same messages to a subscriber that answers each with a byte on the file descriptor `taken`; seconds."""
        assert self.round is not None
        parts = self._parts()
        began, sent, answered = time.monotonic(), 0, 0
        for device in devices:
            for part, payload in enumerate(parts):
                self.mqtt.publish(topics.update(device, self.round.round, part), payload)
            sent += len(parts)
            while sent - answered > window * len(parts) or (sent == len(devices) * len(parts) and answered < sent):
                if not select.select([taken], [], [], STALLED_S)[0]:
                    raise SystemExit(f"the bare subscriber took nothing for {STALLED_S:.0f} s")
                answered += len(os.read(taken, 65536))
            self._poll(lambda device, message: None, 0.0)
        return time.monotonic() - began

    def _parts(self) -> list[bytes]:
        manifest, round = self.manifest, self.round
        splitter = Splitter(
            self._blob, manifest.part_bytes, kind=Kind.UPDATE, codec=manifest.update_codec.wire_id,
            federation=federation_hash(manifest.federation, manifest.run, manifest.plan.hash), round=round.round,
            version=round.version,
        )  # fmt: skip
        return [splitter.part(i) for i in range(splitter.parts)]

    def _poll(self, on_inbox: Callable[[str, object], None], patience_s: float = 0.2) -> bool:
        """Take what has come; False if nothing came."""
        came = False
        for topic, payload in self.mqtt.messages(patience_s):
            came = True
            if topic == self.topics.manifest:
                self.manifest = decode(Manifest, payload, RETAINED_LIMIT)
            elif topic == self.topics.round:
                self.round = decode(Round, payload, RETAINED_LIMIT)
            else:
                on_inbox(self.topics.device_of(topic), decode(Inbox, payload))
        return came
