"""The messages for viewers: their JSON is frozen, and whatever a fleet says, they stay within their limits."""

from __future__ import annotations

import msgspec
import pytest

from edgefl.errors import ProtocolError
from edgefl.protocol.fleet import (
    MAX_PAGES,
    PAGE_DEVICES,
    PAGE_LIMIT,
    SUMMARY_LIMIT,
    Adaptive,
    DeviceRow,
    FleetPage,
    OpenRound,
    PastRound,
    Spent,
    Summary,
    clip,
    decode_page,
    decode_summary,
    encode_page,
    encode_summary,
    plain,
    word,
)
from edgefl.protocol.topics import Topics

TALL = 2**53
HOSTILE = '"\U0001f600' * 100


def worst(number: int, text: str = HOSTILE) -> DeviceRow:
    """A device that says as much as it may."""
    device = f"{number:02d}" + "d" * 62
    return DeviceRow(
        device, "disconnected".ljust(16, "x"), "c" * 16, text, since=10**10, seen=10**10, examples=2**32,
        counted=2**32, times=2**32, bytes_up=TALL, bytes_down=TALL, agent="9" * 16, model=2**32, celsius=-100,
        missed=text, barred=text, paused=text,
    )  # fmt: skip


def test_the_json_is_frozen():
    row = DeviceRow("pi-1", "ready", since=5, seen=6, examples=7)
    small = Summary("pond", "0" * 16, 9, "waiting", 3, 2)
    assert encode_page(FleetPage(0, 9, [row])) == (
        b'{"page":0,"at":9,"devices":[{"id":"pi-1","state":"ready","since":5,"seen":6,"examples":7}]}'
    )
    assert encode_summary(small) == (
        b'{"federation":"pond","run":"0000000000000000","at":9,"phase":"waiting","round":3,"version":2}'
    )
    grown = encode_summary(small)[:-1] + b',"weather":"fine"}'
    assert decode_summary(grown) == small  # what a newer aggregator adds is ignored


def test_a_full_page_of_the_longest_rows_fits():
    page = FleetPage(MAX_PAGES - 1, 10**10, [worst(number) for number in range(PAGE_DEVICES)])
    raw = encode_page(page)
    assert len(raw) <= PAGE_LIMIT - 1024
    found = decode_page(raw)
    assert [row.id for row in found.devices] == [row.id for row in page.devices]
    assert {row.reason for row in found.devices} == {""}  # texts give way first


def test_texts_are_shortened_no_further_than_needed():
    rows = [DeviceRow(f"pi-{number:03d}", "trouble", "data", "x" * 500) for number in range(PAGE_DEVICES)]
    reasons = {row.reason for row in decode_page(encode_page(FleetPage(0, 1, rows))).devices}
    assert reasons == {"x" * 159 + "…"}


def test_what_an_operator_has_to_do_is_told_to_its_end():
    """The number to set stands at the end of it."""
    told = ["helper north has signed that " + "x" * 250 + ": set [privacy] opened = 31", "y" * 2000]
    kept = decode_summary(encode_summary(Summary("f", "0" * 16, 9, "waiting", 3, 2, advice=told))).advice
    assert kept == [told[0], "y" * 639 + "…"]


@pytest.mark.parametrize("text", ["", "why", HOSTILE])
def test_a_summary_fits_whatever_the_fleet_says(text):
    names = [f"{number:02d}" + "w" * 62 for number in range(20)]
    summary = Summary(
        "f" * 48, "0" * 16, 10**10, "evaluating", 2**32, 2**32, 2**32, 10**6, 10**6, {"s" * 16 + str(i): TALL for i in
        range(12)}, 9, 9, OpenRound(2**32, 2**32, "evaluate", TALL, TALL, 9**9, 9**9, names, 9**9, TALL), TALL,
        [text] * 8, [worst(number, text) for number in range(20)],
        [PastRound(2**32, "evaluated", 2**32, 9**9, 9**9, 1 / 3, TALL, TALL, 1 / 3, 1 / 3, TALL, text,
                   1 / 3, 1 / 3, 10**6, 10**6, 1 / 3, 1 / 3)] * 5, 99, "9.9",
        privacy=Spent(10 / 3, 1e-5 / 3, TALL, 20 / 3), adaptive=Adaptive(10 / 3, 1 / 3, 2 / 3),
    )  # fmt: skip
    raw = encode_summary(summary)
    assert len(raw) <= SUMMARY_LIMIT - 1024
    found = decode_summary(raw)
    assert found.open is not None and found.open.waits_for == names and len(found.last) == 5
    assert len(found.troubled) >= 5  # of the longest possible
    assert found.last[0].personal == 10**6
    assert found.privacy == summary.privacy


def test_what_a_device_says_steers_no_terminal():
    assert plain("full\x1b[2J\n") == "full?[2J?" and plain("größer") == "größer"
    assert word("ready") == "ready" and word('re"ady\x00\U0001f600' + "x" * 50) == "re?ady??xxxxxxxx"
    assert clip("abcdef", 4) == "abc…" and clip("abcd", 4) == "abcd" and clip("a", 0) == ""


@pytest.mark.parametrize("raw", [
    b"", b"[]", b"{}", b'{"page":-1,"at":0}', b'{"page":1024,"at":0}', b'{"page":0,"at":"x"}', b"[" * 40000, b"\xff",
    msgspec.json.encode({"page": 0, "at": 0, "devices": [{"id": "a", "state": "ready"}] * (PAGE_DEVICES + 1)}),
    b'{"page":0,"at":0,"devices":[{"id":"a; reboot","state":"lost"}]}',
    b'{"page":0,"at":0,"devices":[{"id":"a","state":"lost","bytes_up":1' + b"0" * 400 + b"}]}",
    b'{"page":0,"at":0,"devices":[{"id":"' + b"a" * 65 + b'","state":"ready"}]}',
])  # fmt: skip
def test_what_is_no_page_is_refused(raw):
    with pytest.raises(ProtocolError):
        decode_page(raw)
    with pytest.raises(ProtocolError):
        decode_summary(raw)


def test_pages_have_topics():
    topics = Topics("pond")
    assert topics.summary == "edgefl/2/pond/summary" and topics.any_page == "edgefl/2/pond/fleet/+"
    assert topics.page_of(topics.fleet(17)) == 17
    for other in ("edgefl/2/pond/fleet/01", "edgefl/2/pond/fleet/", "edgefl/2/pool/fleet/1", topics.summary):
        assert topics.page_of(other) is None
