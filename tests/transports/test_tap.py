"""Tap: messages off the stream however it is cut, everything else to paho, acknowledgements never within a packet."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.protocol.envelope import HEADER_BYTES, MAX_PART_BYTES
from edgefl.protocol.messages import RETAINED_LIMIT
from edgefl.protocol.parts import TOPIC_BYTES
from edgefl.transports.tap import CALM, FIRST_BUFFER, FULL, LARGEST_BUFFER, LARGEST_PACKET, Tap, varint

PUBACK = b"\x40\x02\x00\x07"
PINGRESP = b"\xd0\x00"


def varlen(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def publish(topic="t", payload=b"x", packet_id=5, qos=1, retain=False, properties: bytes | None = b"") -> bytes:
    """A PUBLISH packet; `properties` None: of MQTT 3.1.1."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (packet_id.to_bytes(2, "big") if qos else b"")
    body += b"" if properties is None else varlen(len(properties)) + properties
    return bytes([0x30 | qos << 1 | retain]) + varlen(len(body + payload)) + body + payload


class Wire:
    """A socket that gives what it is told, and takes at most `room` bytes."""

    def __init__(self, *chunks: bytes | OSError) -> None:
        self.chunks = list(chunks)
        self.sent, self.room = b"", 10**9

    def recv_into(self, room: memoryview) -> int:
        if not self.chunks:
            raise BlockingIOError
        chunk = self.chunks.pop(0)
        if isinstance(chunk, OSError):
            raise chunk
        if len(chunk) > len(room):
            self.chunks.insert(0, chunk[len(room) :])
        size = min(len(chunk), len(room))
        room[:size] = chunk[:size]
        return size

    def send(self, data: bytes) -> int:
        if self.room == 0:
            raise BlockingIOError
        size = min(len(data), self.room)
        self.sent, self.room = self.sent + bytes(data[:size]), self.room - size
        return size

    def close(self) -> None:
        pass


def tapped(*chunks, v5=True):
    """A tap on these chunks, its wire, and what it hands over."""
    wire, heard = Wire(*chunks), []
    return Tap(wire, v5, lambda *message: heard.append(message)), wire, heard


def read_all(tap, wire) -> bytes:
    """Read until nothing comes; what paho gets."""
    passed_on = b""
    while True:
        tap.fill()
        while tap.for_paho:
            passed_on += tap.recv(3)
        if not wire.chunks:
            return passed_on


STREAM = b"".join([
    b"\x20\x03\x00\x00\x00", publish("a/b", b"one", 1), PUBACK, publish("c", b"", 2, retain=True),
    publish("d", b"two" * 50, 3, properties=b"\x01\x00"), PINGRESP, publish("e", b"zero", qos=0), publish("f", qos=2),
])  # fmt: skip
HEARD = [
    ("a/b", b"one", False, 1), ("c", b"", True, 2), ("d", b"two" * 50, False, 3), ("e", b"zero", False, 0),
]  # fmt: skip
PASSED_ON = b"\x20\x03\x00\x00\x00" + PUBACK + PINGRESP + publish("f", qos=2)


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12).map(sorted))
def test_a_stream_means_the_same_however_it_is_cut(cuts):
    edges = [0, *cuts, len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(edges) if a < b]
    tap, wire, heard = tapped(*chunks)
    assert read_all(tap, wire) == PASSED_ON
    assert heard == HEARD


def test_mqtt_3_1_1_has_no_properties():
    tap, wire, heard = tapped(publish("t", b"\x00\x01", 9, properties=None), v5=False)
    assert read_all(tap, wire) == b""
    assert heard == [("t", b"\x00\x01", False, 9)]


@pytest.mark.parametrize("size", [FIRST_BUFFER - 8, FIRST_BUFFER, LARGEST_BUFFER * 2, LARGEST_PACKET - 256])
def test_packets_of_any_length_and_what_follows_them(size):
    payload = bytes(range(256)) * (size // 256)
    tap, wire, heard = tapped(publish("t", payload, 1) + publish("u", b"after", 2))
    assert read_all(tap, wire) == b""
    assert heard == [("t", payload, False, 1), ("u", b"after", False, 2)]


def test_i13_the_buffer_grows_only_for_what_has_come():
    tap, wire, _ = tapped(b"\x32" + varlen(1_000_000) + b"\x00\x01t")
    read_all(tap, wire)
    assert len(tap._buffer) == FIRST_BUFFER
    wire.chunks = [publish("t", bytes(100_000), n) for n in range(1, 100)]
    tap, wire, heard = tapped(*wire.chunks)
    read_all(tap, wire)
    assert len(heard) == 99 and len(tap._buffer) <= LARGEST_BUFFER


@pytest.mark.parametrize("v5", [True, False])
@pytest.mark.parametrize("kind", [0x32, 0x36, 0xD0])
def test_i17_a_packet_above_the_limit_ends_the_connection_before_it_comes(kind, v5):
    tap, _, heard = tapped(publish(properties=b"" if v5 else None) + bytes([kind]) + varlen(LARGEST_PACKET + 1), v5=v5)
    with pytest.raises(ConnectionError, match=f"packet of {LARGEST_PACKET + 1} bytes, at most {LARGEST_PACKET}"):
        tap.fill()
    assert (len(heard), len(tap._buffer)) == (1, FIRST_BUFFER)
    tap, _, _ = tapped(bytes([kind]) + varlen(LARGEST_PACKET), v5=v5)
    tap.fill()


def test_all_that_the_protocol_sends_fits_in_a_packet():
    part = HEADER_BYTES + MAX_PART_BYTES
    assert max(part, RETAINED_LIMIT) + TOPIC_BYTES <= LARGEST_PACKET


def test_i13_a_buffer_that_has_grown_is_let_go_when_it_is_calm():
    tap, wire, heard = tapped(publish(payload=bytes(1_000_000)))
    read_all(tap, wire)
    assert len(tap._buffer) > 1_000_000
    for n in range(CALM):
        assert len(tap._buffer) > FIRST_BUFFER
        wire.chunks = [publish(packet_id=n + 1)]
        tap.fill()
    assert len(tap._buffer) == FIRST_BUFFER
    wire.chunks = [STREAM]
    assert read_all(tap, wire) == PASSED_ON
    assert heard[1 + CALM :] == HEARD


def test_under_load_the_buffer_stays():
    """Small reads come between the large ones."""
    tap, wire, heard = tapped()
    large, small, sizes = publish(payload=bytes(60_000)), publish(), set()
    for _ in range(20):
        wire.chunks = [large[:40_000], large[40_000:], *[small] * (CALM - 1)]
        read_all(tap, wire)
        sizes.add(len(tap._buffer))
    assert (len(heard), len(sizes)) == (20 * CALM, 1)


def test_a_buffer_is_not_let_go_with_half_a_packet_in_it():
    tap, wire, heard = tapped()
    packet = publish(payload=bytes(range(256)) * 400)
    pieces = [packet[at : at + 1000] for at in range(0, len(packet), 1000)]
    wire.chunks = [packet, *pieces]
    read_all(tap, wire)
    assert [message[1] for message in heard] == [bytes(range(256)) * 400] * 2


MALFORMED = {
    "a length of five bytes": b"\x32\xff\xff\xff\xff\x01",
    "a topic longer than the packet": b"\x32\x04\x00\x09ab",
    "no properties": b"\x32\x05\x00\x01t\x00\x01",
    "a topic that is no UTF-8": b"\x30\x03\x00\x01\xff",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_i15_malformed_packets_end_the_connection(name):
    tap, _, heard = tapped(MALFORMED[name])
    with pytest.raises((ConnectionError, ValueError)):
        tap.fill()
    assert heard == []


def test_the_end_is_told_after_what_came_before_it():
    tap, _, heard = tapped(publish() + PINGRESP, b"")
    tap.fill()
    tap.fill()
    assert len(heard) == 1
    assert (tap.recv(10), tap.recv(10)) == (PINGRESP, b"")
    tap, _, _ = tapped(ConnectionResetError("reset"))
    tap.fill()
    with pytest.raises(ConnectionResetError):
        tap.recv(1)


def test_what_is_sent_goes_together_and_in_order():
    tap, wire, _ = tapped()
    tap.ack(1)
    assert tap.send(PINGRESP) == 2
    tap.ack(300)
    assert wire.sent == b"" and tap.unsent
    for wire.room in (3, 0, 100):
        tap.flush()
    assert wire.sent == b"\x40\x02\x00\x01" + PINGRESP + b"\x40\x02\x01\x2c"
    assert not tap.unsent


def test_i13_what_waits_to_be_sent_is_bounded():
    tap, wire, _ = tapped()
    wire.room = 0
    assert tap.send(bytes(FULL)) == FULL
    with pytest.raises(BlockingIOError):
        tap.send(PINGRESP)
    tap.ack(7)  # at most as many as the broker sends
    wire.room = FULL + 4
    assert tap.send(PINGRESP) == 2
    tap.flush()
    assert len(wire.sent) == FULL + 4 and tap.unsent


def test_last_words_go_out_unless_it_is_abandoned():
    for close, words in ((Tap.close, PINGRESP), (Tap.abandon, b"")):
        tap, wire, _ = tapped()
        tap.send(PINGRESP)
        close(tap)
        assert wire.sent == words


def test_nothing_to_read_is_no_end():
    tap, _, _ = tapped()
    tap.fill()
    assert not tap.for_paho
    with pytest.raises(BlockingIOError):
        tap.recv(1)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2_097_152, 268_435_455])
def test_variable_byte_integers(value):
    written = varlen(value)
    assert varint(memoryview(b"?" + written + b"!"), 1) == (1 + len(written), value)
    end, _ = varint(memoryview(written[:-1]), 0)
    assert end > len(written) - 1


def test_a_real_pair_of_sockets():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = []
        tap = Tap(ours, True, lambda *message: heard.append(message))
        tap.setblocking(False)
        tap.fill()
        theirs.sendall(publish(packet_id=7))
        tap.fill()
        tap.ack(heard[0][3])
        tap.flush()
        assert theirs.recv(10) == PUBACK
        assert tap.fileno() == ours.fileno()
        tap.close()


def test_after_a_send_that_failed_nothing_follows():
    tap, wire, _ = tapped()
    wire.send = lambda data: (_ for _ in ()).throw(OSError(105, "No buffer space available"))
    tap.send(PINGRESP)
    tap.flush()
    del wire.send
    tap.flush()
    assert wire.sent == b"" and tap.for_paho
    with pytest.raises(OSError, match="No buffer space"):
        tap.recv(1)
