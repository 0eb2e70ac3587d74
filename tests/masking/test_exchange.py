"""What aggregator and helper tell each other: read back, bound to its receiver, and refused otherwise."""

from __future__ import annotations

import hashlib

import masked
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefl.errors import ProtocolError
from edgefl.masking import exchange, ring
from edgefl.masking.exchange import Answer, Ask, Entry
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey

ROOT, SIGNER = (SigningKey(hashlib.sha256(name).digest()) for name in (b"root", b"signer"))
NORTH = masked.helper("north")
OWN = masked.terms(groups=2)
CERTIFICATE = SignerCertificate.of(
    SIGNER.public, federation="plant", serial=1, epoch=7, not_before=0, not_after=2**40
).seal(ROOT)


def entry(device: str, mark: int = 1) -> Entry:
    return Entry(device, bytes([mark]) * 32, b"s" * 64, (b"x" * 120,))


ASK = Ask(OWN.text, 4, (entry("dev-1"), entry("dev-2"), entry("dev-3")))


def sealed(ask: Ask = ASK, helper: str = "north", epoch: int = 7, key: SigningKey = SIGNER) -> bytes:
    return exchange.seal_ask(ask, helper, epoch, key, CERTIFICATE)


def opened(raw: bytes, federation: str = "plant", devices: int = 12, root: bytes = ROOT.public):
    return exchange.open_ask(raw, "north", root, federation, devices)


def test_an_ask_is_read_back():
    raw = sealed()
    found, certificate = opened(raw)
    assert found == ASK and certificate.epoch == 7 and len(raw) <= exchange.ask_bound(3)
    boxes = (b"x" * 114, b"y" * 177, b"z" * 120, b"w" * 120)
    most = replace(ASK, entries=(replace(entry("d" * 64), boxes=boxes),), seen_round=2, seen_epsilon=0.5)
    assert opened(sealed(most))[0] == most and len(sealed(most)) <= exchange.ask_bound(1)


def test_an_ask_without_a_set_is_read_back_and_has_a_digest_of_its_own():
    none = replace(ASK, entries=(), seen_round=2, seen_epsilon=0.5)
    assert opened(sealed(none), devices=0)[0] == none and len(sealed(none)) <= exchange.ask_bound(0)
    assert none.set_digest != ASK.set_digest


@pytest.mark.parametrize(
    "raw",
    [sealed(helper="south"), sealed(epoch=6), sealed(key=ROOT), sealed()[:-1], sealed() + b"x", b"", b"\x02" * 300],
)
def test_an_ask_that_is_not_sealed_for_this_helper_is_refused(raw):
    with pytest.raises(ProtocolError):
        opened(raw)


def test_an_ask_of_another_federation_root_or_size_is_refused():
    for options in ({"federation": "works"}, {"root": SIGNER.public}, {"devices": 2}):
        with pytest.raises(ProtocolError):
            opened(sealed(), **options)


@pytest.mark.parametrize(
    "entries",
    [
        (entry("a/b"),),
        (entry("a#"),),
        (replace(entry("a"), boxes=()),),
        (replace(entry("a"), boxes=5 * (b"x" * 120,)),),
    ],
)
def test_a_set_that_cant_be_is_refused(entries):
    with pytest.raises(ProtocolError):
        opened(sealed(replace(ASK, entries=entries)))


@pytest.mark.parametrize("size", [0, 113, 178])
def test_boxes_of_other_lengths_are_refused(size):
    with pytest.raises(ProtocolError):
        opened(sealed(replace(ASK, entries=(replace(entry("dev-1"), boxes=(bytes(size),)),))))


def test_a_set_has_one_digest():
    """It depends on the terms and on each device's vector and boxes; not on the attempt, or what was seen."""
    base = ASK.set_digest
    assert replace(ASK, attempt=9).set_digest == base
    assert replace(ASK, seen_round=2, seen_epsilon=0.5).set_digest == base
    others = [
        replace(ASK, entries=ASK.entries[:2]), replace(ASK, entries=(entry("dev-1", 2), *ASK.entries[1:])),
        replace(ASK, entries=(entry("dev-0"), *ASK.entries[1:])), replace(ASK, terms=masked.terms(seed=9).text),
        replace(ASK, entries=(replace(ASK.entries[0], boxes=(b"y" * 120,)), *ASK.entries[1:])),
    ]  # fmt: skip
    assert len({base, *(each.set_digest for each in others)}) == 6


def test_an_ask_without_a_set_has_one_form(monkeypatch):
    """It names no number of helpers, since there are no sealed seeds to count."""
    none = replace(ASK, entries=())
    said = none.to_bytes()
    assert said[-1] == 0
    monkeypatch.setattr(Ask, "to_bytes", lambda self: said[:-1] + b"\2")
    with pytest.raises(ProtocolError, match="for 2 helpers"):
        opened(sealed(none))


@given(st.binary(max_size=300), st.integers(0, 10**6))
def test_i15_a_changed_ask_is_refused(data, place):
    broken = bytearray(sealed())
    broken[place % len(broken)] ^= 1 + place % 255
    for raw in (data, bytes(broken)):
        with pytest.raises(ProtocolError):
            opened(raw)


# ---- answers


def packed(seed: int) -> bytes:
    numbers = np.random.default_rng(seed).integers(0, 2**OWN.bits, OWN.length).astype(np.uint32)
    return ring.pack(numbers, OWN.bits)


ANSWER = Answer(OWN.digest, ASK.set_digest, 3, 1.25, ((3, packed(1)), None))


def read(raw: bytes, own=OWN, helper: str = "north", key: bytes = NORTH.key.public) -> Answer:
    return exchange.read_answer(raw, helper, key, own)


def test_an_answer_is_read_back():
    raw = ANSWER.to_bytes("north", NORTH.key)
    assert read(raw) == ANSWER and len(raw) <= exchange.answer_bound(OWN)
    both = replace(ANSWER, groups=((3, packed(1)), (4, packed(2))))
    assert read(both.to_bytes("north", NORTH.key)) == both
    for start in ("a set of 1 device", "a set of 12 devices"):  # one is cut within a letter
        refusal = replace(ANSWER, groups=(), reason=start + "é" * 900)
        found = read(refusal.to_bytes("north", NORTH.key))
        assert found.reason.startswith(start) and set(found.reason[len(start) :]) == {"é"} and found.groups == ()


def test_an_answer_of_another_layout_says_which_side_to_update(monkeypatch):
    monkeypatch.setattr(exchange, "LAYOUT", 2)
    raw = ANSWER.to_bytes("north", NORTH.key)
    monkeypatch.undo()
    with pytest.raises(ProtocolError, match=r"layout 2, .* update the older side"):
        read(raw)


def test_devices_that_an_answer_names_are_read_back():
    for named in ((), ("dev-1",), ("a", "dev-2", "z" * 64), tuple(f"d{n:063}" for n in range(exchange.MAX_NAMED))):
        naming = replace(ANSWER, unopened=named)
        raw = naming.to_bytes("north", NORTH.key)
        assert read(raw) == naming
        refusal = replace(naming, groups=(), reason="box: " + "x" * 495)
        assert read(refusal.to_bytes("north", NORTH.key)) == refusal
    full = replace(naming, groups=((3, packed(1)), (4, packed(2))), reason="")
    assert len(full.to_bytes("north", NORTH.key)) <= exchange.answer_bound(OWN)


def test_an_answer_of_another_helper_key_or_terms_is_refused():
    raw = ANSWER.to_bytes("north", NORTH.key)
    for options in (
        {"helper": "south"},
        {"key": masked.helper("south").key.public},
        {"own": masked.terms(groups=2, seed=1)},
    ):
        with pytest.raises(ProtocolError):
            read(raw, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": ((3, packed(1)),)}, {"groups": ((13, packed(1)), None)}, {"groups": ((3, packed(1)[:-1]), None)},
        {"epsilon": float("nan")}, {"epsilon": -1.0}, {"epsilon": float("inf")}, {"groups": ()},
        {"reason": "no", "groups": ((3, packed(1)), None)}, {"unopened": ("b", "a")}, {"unopened": ("a", "a")},
        {"unopened": ("a/b",)}, {"unopened": ("",)}, {"unopened": ("a" * 65,)},
        {"unopened": tuple(f"d{n:04}" for n in range(exchange.MAX_NAMED + 1))},
    ],
)  # fmt: skip
def test_an_answer_that_cant_be_is_refused_although_it_is_signed(changes):
    with pytest.raises(ProtocolError):
        read(replace(ANSWER, **changes).to_bytes("north", NORTH.key))


@given(st.binary(max_size=300), st.integers(0, 10**6))
def test_i15_a_changed_answer_is_refused(data, place):
    broken = bytearray(ANSWER.to_bytes("north", NORTH.key))
    broken[place % len(broken)] ^= 1 + place % 255
    for raw in (data, bytes(broken)):
        with pytest.raises(ProtocolError):
            read(raw)
