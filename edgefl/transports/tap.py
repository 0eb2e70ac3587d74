"""Tap: between paho-mqtt and its socket. Takes messages in bulk, before paho sees them, and sends in bulk.

paho reads an MQTT packet in five system calls, copies its payload four times and writes each packet by itself; with
parts of 64 KiB that is most of what an aggregator does. Here one call reads what has come. PUBLISH packets of QoS 0
and 1 become messages, copied once; all other packets are passed on to paho, whole (MQTT 5, sections 2.1 and 3.3; 3.1.1
is alike but for properties). What is to be sent waits for `flush`, as each call costs a wait for Python's lock.

Not here: everything else of the protocol, which is paho's.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTProtocolVersion

from ..protocol.envelope import HEADER_BYTES, MAX_PART_BYTES
from ..protocol.parts import TOPIC_BYTES

PUBLISH = 3
LARGEST_PACKET = MAX_PART_BYTES + HEADER_BYTES + TOPIC_BYTES  # the longest part; nothing else of ours is so long
FIRST_BUFFER, LARGEST_BUFFER = 16 * 1024, 512 * 1024  # it grows while reads fill it; beyond, only for a larger packet
FULL = 64 * 1024  # waiting to be sent: then paho has to wait too
CALM = 16  # reads in a row that the first buffer would do for: then a larger one is let go
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Tap:
    """A socket as paho wants it. `on_message(topic, payload, retain, packet_id)`; packet_id 0 wants no `ack`."""

    def __init__(self, sock: socket.socket, v5: bool, on_message: Callable[[str, bytes, bool, int], None]) -> None:
        self._socket = sock
        self._v5 = v5
        self._on_message = on_message
        self._buffer = bytearray(FIRST_BUFFER)
        self._end = 0  # of what has been read
        self._calm = 0  # so many reads in a row needed no larger buffer than the first
        self._passed_on = bytearray()
        self._lost: OSError | None = None
        self._closed = False
        self._unsent = bytearray()  # whole packets, but for what has gone of the first

    # For paho

    def recv(self, size: int) -> bytes:
        """What is passed on; b"" at the end of the connection, else OSError."""
        if self._passed_on:
            taken = bytes(self._passed_on[:size])
            del self._passed_on[:size]
            return taken
        if self._lost is not None:
            raise self._lost
        if self._closed:
            return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        """All of it, at the next `flush`."""
        if len(self._unsent) >= FULL:
            self.flush()
        if len(self._unsent) >= FULL:
            raise BlockingIOError
        self._unsent += data
        return len(data)

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, blocking: bool) -> None:
        self._socket.setblocking(blocking)

    def close(self) -> None:
        """After a last DISCONNECT, if there is one."""
        self.flush()
        self._socket.close()

    # For the connection

    @property
    def for_paho(self) -> bool:
        """Whether paho is to read now."""
        return bool(self._passed_on) or self._lost is not None or self._closed

    @property
    def pending(self) -> bool:
        """Bytes that TLS has already decrypted are invisible to poll."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    @property
    def unsent(self) -> bool:
        """Whether anything waits for `flush`."""
        return bool(self._unsent)

    def ack(self, packet_id: int) -> None:
        """Acknowledge a message at the next `flush`."""
        self._unsent += b"\x40\x02" + packet_id.to_bytes(2, "big")

    def flush(self) -> None:
        """Send what waits, as much as goes."""
        if not self._unsent or self._lost is not None:
            return
        try:
            sent = self._socket.send(self._unsent)
        except NOT_NOW:
            sent = 0
        except OSError as error:
            self._lost, sent = error, 0
        del self._unsent[:sent]

    def abandon(self) -> None:
        """Close without a word."""
        self._unsent.clear()
        self.close()

    def fill(self) -> None:
        """Read once, and hand over what is whole. ConnectionError or ValueError if it is not MQTT, or too long."""
        try:
            with memoryview(self._buffer) as view, view[self._end :] as room:
                size = self._socket.recv_into(room)
        except NOT_NOW:
            return
        except OSError as error:
            self._lost = error
            return
        self._closed = size == 0
        self._end += size
        read = self._end
        with memoryview(self._buffer) as view:
            done = self._take(view[:read])
        self._buffer[: read - done] = self._buffer[done:read]
        self._end -= done
        self._resize(read)

    def _resize(self, read: int) -> None:
        """Fit the buffer to how much there was in it after a read."""
        size = len(self._buffer)
        self._calm = self._calm + 1 if read <= FIRST_BUFFER < size else 0
        if self._end == size or (read == size < LARGEST_BUFFER):
            self._buffer += bytes(size)
        elif self._calm == CALM:
            del self._buffer[FIRST_BUFFER:]

    def _take(self, view: memoryview) -> int:
        """Hand over the whole packets at the beginning of `view`; how many bytes they are.

        ConnectionError as soon as one announces too many bytes: in MQTT 3.1.1 the broker can't be told beforehand.
        """
        at = 0
        while at + 2 <= len(view):
            start, length = varint(view, at + 1)
            end = start + length
            if length > LARGEST_PACKET:  # without its header: some brokers count no more
                raise ConnectionError(
                    f"the broker sends a packet of {length} bytes, at most {LARGEST_PACKET} are taken: clear what "
                    "others have published on this federation's topics, or use MQTT 5, where it is not sent"
                )
            if end > len(view):
                break
            if view[at] >> 4 == PUBLISH and view[at] & 0x04 == 0:
                self._message(view[at], view[start:end])
            else:
                self._passed_on += view[at:end]
            at = end
        return at

    def _message(self, flags: int, body: memoryview) -> None:
        after = 2 + int.from_bytes(body[:2], "big")
        topic, packet_id = str(body[2:after], "utf-8"), 0
        if flags & 0x02:
            packet_id, after = int.from_bytes(body[after : after + 2], "big"), after + 2
        if self._v5:
            after, properties = varint(body, after)
            after += properties
        if after > len(body):
            raise ConnectionError("a PUBLISH shorter than what it announces")
        self._on_message(topic, bytes(body[after:]), bool(flags & 0x01), packet_id)


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """Where a variable byte integer ends, and its value; beyond the end of `view` if it is not whole yet.

    ConnectionError if it has more than four bytes (MQTT 5, section 1.5.5).
    """
    value = 0
    for shift in range(0, 28, 7):
        if at >= len(view):
            return len(view) + 1, 0
        byte = view[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return at, value
    raise ConnectionError("a length of more than four bytes")


class TappedClient(Client):
    """A paho client on a Tap."""

    tap: Tap | None = None

    def __init__(self, *args: Any, on_tapped: Callable[[str, bytes, bool, int], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_tapped = on_tapped

    def _create_socket(self) -> Tap:  # type: ignore[override]
        """Where paho, too, puts a WebSocket between itself and its socket."""
        sock: Any = super()._create_socket()
        # Small packets follow each other both ways: with Nagle's algorithm each would wait for a delayed ACK, 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tap = Tap(sock, self._protocol == MQTTProtocolVersion.MQTTv5, self._on_tapped)
        return self.tap
