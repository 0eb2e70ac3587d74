"""Tap: sits between paho-mqtt and its socket. It reads messages in bulk, before paho sees them, and sends in bulk.

paho needs five system calls to read an MQTT packet, copies its payload four times and writes each packet by itself.
With parts of 64 KiB an aggregator would spend most of its time there. The tap reads whatever has arrived in one call.
It turns PUBLISH packets of QoS 0 and 1 into messages, with one copy, and passes all other packets on to paho, whole
(MQTT 5, sections 2.1 and 3.3; 3.1.1 differs only in the properties). Outgoing bytes wait for `flush`, since each system
call may wait for Python's lock.

Not here: the rest of the protocol, which paho speaks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from paho.mqtt.enums import MQTTProtocolVersion

from ..protocol.envelope import HEADER_BYTES, MAX_PART_BYTES
from ..protocol.parts import TOPIC_BYTES
from .lean import Client, ssl
from .traffic import Counts, kernel_counts

PUBLISH = 3
PINGREQ = b"\xc0\x00"
LARGEST_PACKET = MAX_PART_BYTES + HEADER_BYTES + TOPIC_BYTES  # the longest part; no other packet of ours is longer
FIRST_BUFFER, LARGEST_BUFFER = 16 * 1024, 512 * 1024  # grows while reads fill it; further only for a larger packet
FULL = 64 * 1024  # unsent bytes above which paho has to wait
CALM = 16  # after so many reads that fit the first buffer, a larger one is freed


class Tap:
    """A socket for paho. Calls `on_message(topic, payload, retain, packet_id)`; a packet_id of 0 needs no `ack`."""

    def __init__(self, sock: socket.socket, v5: bool, on_message: Callable[[str, bytes, bool, int], None]) -> None:
        self._socket = sock
        self._v5 = v5
        self._on_message = on_message
        self._buffer = bytearray(FIRST_BUFFER)
        self._end = 0  # of the bytes read so far
        self._calm = 0  # reads in a row that would have fitted the first buffer
        self._passed_on = bytearray()
        self._lost: OSError | None = None
        self._closed = False
        self._unsent = bytearray()  # whole packets; the first may have been sent in part
        self._received = self._accepted = 0  # bytes read, and bytes that the kernel has accepted

    # For paho

    def recv(self, size: int) -> bytes:
        """The next bytes for paho, or b"" at the end of the connection.

        BlockingIOError if no bytes have come, another OSError if the connection broke.
        """
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
        """Queue the data for the next `flush`; BlockingIOError while too much is queued."""
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
        """Send what is queued, such as a DISCONNECT, and close."""
        self.flush()
        self._socket.close()

    # For the connection

    @property
    def for_paho(self) -> bool:
        """Whether there is something for paho to read."""
        return bool(self._passed_on) or self._lost is not None or self._closed

    @property
    def lost(self) -> OSError | None:
        """The error that has ended the connection, if one has."""
        return self._lost

    @property
    def pending(self) -> bool:
        """Whether TLS holds decrypted bytes, which poll cannot see."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    @property
    def unsent(self) -> bool:
        """Whether anything waits for `flush`."""
        return bool(self._unsent)

    @property
    def arriving(self) -> int:
        """How many bytes have come of a packet that is not whole yet."""
        return self._end

    @property
    def counts(self) -> Counts:
        """What has passed; as far as the kernel can't tell, what it was given and has given."""
        counted = kernel_counts(self._socket) or Counts(self._received, self._accepted, 0)
        return counted._replace(pending=counted.pending + len(self._unsent))

    def ping(self) -> None:
        """Ask the broker for a sign of life at the next `flush`."""
        self._unsent += PINGREQ

    def ack(self, packet_id: int) -> None:
        """Acknowledge a message at the next `flush`."""
        self._unsent += b"\x40\x02" + packet_id.to_bytes(2, "big")

    def flush(self) -> None:
        """Send as many queued bytes as the socket accepts."""
        if not self._unsent or self._lost is not None:
            return
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError as error:
            self._lost, sent = error, 0
        self._accepted += sent
        del self._unsent[:sent]

    def abandon(self) -> None:
        """Close without sending what is queued."""
        self._unsent.clear()
        self.close()

    def fill(self) -> None:
        """Read once, and hand over complete packets. ConnectionError or ValueError if not MQTT, or too long."""
        try:
            with memoryview(self._buffer) as view, view[self._end :] as room:
                size = self._socket.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._lost = error
            return
        self._closed = size == 0
        self._received += size
        self._end += size
        read = self._end
        with memoryview(self._buffer) as view:
            done = self._take(view[:read])
        self._buffer[: read - done] = self._buffer[done:read]
        self._end -= done
        self._resize(read)

    def _resize(self, read: int) -> None:
        """Grow or shrink the buffer by how full the last read left it."""
        size = len(self._buffer)
        self._calm = self._calm + 1 if read <= FIRST_BUFFER < size else 0
        if self._end == size or (read == size < LARGEST_BUFFER):
            self._buffer += bytes(size)
        elif self._calm == CALM:
            del self._buffer[FIRST_BUFFER:]

    def _take(self, view: memoryview) -> int:
        """Hand over the complete packets at the beginning of `view`; returns how many bytes they take.

        ConnectionError as soon as a packet announces too many bytes: MQTT 3.1.1 has no way to tell the broker a limit.
        """
        at = 0
        while at + 2 <= len(view):
            start, length = varint(view, at + 1)
            end = start + length
            if length > LARGEST_PACKET:  # without its header, since some brokers do not count that
                raise ConnectionError(
                    f"the broker sends a packet of {length} bytes, at most {LARGEST_PACKET} are accepted: clear what "
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
    """Where a variable byte integer ends, and its value. The end is beyond `view` if the integer is not complete yet.

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
        """The hook in which paho itself wraps its socket for WebSockets."""
        sock: Any = super()._create_socket()
        # Small packets follow each other in both directions; Nagle's algorithm would delay each by 40 ms, for an ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tap = Tap(sock, self._protocol == MQTTProtocolVersion.MQTTv5, self._on_tapped)
        return self.tap

    def _check_keepalive(self) -> None:
        """paho would judge by whole packets, and cut a link on which a long one takes its time (liveness.py)."""
