"""Payloads and sealed seeds: read back as they were made, and all else is refused with a typed error."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import masked
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefl.errors import ProtocolError
from edgefl.masking import masks, ring, sealed, update
from edgefl.protocol.signed_update import Context, NotSigned, check, sign
from edgefl.protocol.update_header import UpdateHeader
from edgefl.trust.ed25519 import to_text, verify

HELPERS = masked.helper("north"), masked.helper("south")
OWN = masked.terms(HELPERS)
Q = masked.vector(OWN, np.random.default_rng(0))
KEY = masked.device_key("dev-1")


def payload(own=OWN) -> bytes:
    return update.mask(Q.copy(), own, "dev-1", KEY)


def test_a_payload_is_read_back():
    made = payload()
    found = update.read(made, OWN)
    assert found.digest == OWN.digest and len(found.boxes) == 2 and len(found.packed) == OWN.packed_bytes
    assert found.is_signed(KEY.public) and not found.is_signed(masked.device_key("dev-2").public)
    assert len(made) <= update.bound(OWN)
    total = ring.unpack(found.packed, OWN.length, OWN.bits)
    total -= sum(ring.unpack(masked.answer(OWN, each, {"dev-1": found}), OWN.length, OWN.bits) for each in HELPERS)
    assert (ring.centre(total, OWN.bits) == Q).all()


def test_the_longest_name_fits_the_bound():
    made = update.mask(Q.copy(), OWN, "d" * 64, KEY)
    assert len(made) == update.bound(OWN) and update.read(made, OWN)


def test_all_that_is_signed_matters():
    """A changed vector, box or H breaks the signature."""
    made = payload()
    for at in (0, 40, 100, len(made) - OWN.packed_bytes - 5, len(made) - 5):
        broken = bytearray(made)
        broken[at] ^= 1
        try:
            assert not update.read(bytes(broken), OWN).is_signed(KEY.public), at
        except ProtocolError as error:
            assert error.code == "terms" and at == 0


def test_an_update_for_other_terms_is_refused():
    with pytest.raises(ProtocolError, match="for other terms") as caught:
        update.read(payload(masked.terms(HELPERS, clip=0.5)), OWN)
    assert caught.value.code == "terms"


@pytest.mark.parametrize("cut", [0, 31, 96, 128, 129, 130, 180, -1])
def test_a_payload_that_is_cut_off_is_refused(cut):
    with pytest.raises(ProtocolError) as caught:
        update.read(payload()[:cut], OWN)
    assert caught.value.code == "length"


def test_a_longer_payload_and_another_number_of_helpers_are_refused():
    made = payload()
    with pytest.raises(ProtocolError, match="expected"):
        update.read(made + b"\0", OWN)
    broken = bytearray(made)
    broken[128] = 1
    with pytest.raises(ProtocolError, match="for 1 helpers, not 2"):
        update.read(bytes(broken), OWN)
    broken = bytearray(made)
    broken[129:131] = b"\xff\xff"
    with pytest.raises(ProtocolError, match="sealed seed of 65535 bytes"):
        update.read(bytes(broken), OWN)


@given(st.binary(max_size=400), st.booleans())
def test_i15_arbitrary_bytes_are_a_payload_or_a_protocol_error(data, headed):
    whole = OWN.digest + data if headed else data
    try:
        found = update.read(whole, OWN)
    except ProtocolError:
        return
    assert not found.is_signed(KEY.public)


# ---- sealed seeds


def box_of(each=HELPERS[0], digest=OWN.digest, device="dev-1") -> bytes:
    return sealed.seal(b"s" * 32, digest, device, each.public)


def test_a_seed_is_opened_by_its_helper_alone():
    north, south = HELPERS
    box = box_of()
    assert sealed.open_sealed(box, OWN.digest, "dev-1", north.public, north.private) == b"s" * 32
    with pytest.raises(ProtocolError, match="does not open") as caught:
        sealed.open_sealed(box, OWN.digest, "dev-1", south.public, south.private)
    assert caught.value.code == "box"


def test_a_seed_for_other_terms_or_of_another_device_is_refused():
    north = HELPERS[0]
    with pytest.raises(ProtocolError, match="for other terms") as caught:
        sealed.open_sealed(box_of(digest=b"h" * 32), OWN.digest, "dev-1", north.public, north.private)
    assert caught.value.code == "terms"
    for other in ("dev-2", "dev-11"):
        with pytest.raises(ProtocolError, match="of another device"):
            sealed.open_sealed(box_of(device=other), OWN.digest, "dev-1", north.public, north.private)


def test_another_layout_is_refused(monkeypatch):
    north = HELPERS[0]
    monkeypatch.setattr(sealed, "LAYOUT", 2)
    box = box_of()
    monkeypatch.undo()
    with pytest.raises(ProtocolError, match="layout 2"):
        sealed.open_sealed(box, OWN.digest, "dev-1", north.public, north.private)


@given(st.binary(max_size=250), st.integers(0, 10**6))
def test_i15_bytes_that_are_no_box_are_refused(data, place):
    north = HELPERS[0]
    changed = bytearray(box_of())
    changed[place % len(changed)] ^= 1 + place % 255
    for broken in (data, bytes(changed), box_of()[:-1], box_of() + b"x"):
        with pytest.raises(ProtocolError) as caught:
            sealed.open_sealed(broken, OWN.digest, "dev-1", north.public, north.private)
        assert caught.value.code == "box"


def test_a_box_key_of_low_order_is_refused():
    own = masked.terms((replace(HELPERS[0].party, box=to_text(bytes(32))),))
    with pytest.raises(ProtocolError, match="box key that can't be"):
        update.mask(Q.copy(), own, "dev-1", KEY)


def test_boxes_of_one_seed_differ():
    assert box_of() != box_of()


def test_the_statement_has_known_bytes():
    found = update.read(payload(), OWN)
    wire = b"".join(len(box).to_bytes(2, "little") + box for box in found.boxes)
    digests = hashlib.sha256(found.salt + bytes(found.packed)).digest(), hashlib.sha256(wire).digest()
    assert verify(KEY.public, b"edgefl masked 1\n" + OWN.digest + b"".join(digests), found.signature)


def test_a_helper_cant_try_vectors():
    """It knows the mask, so at few bits it could try all vectors. The digest that it is shown is of a salt too."""
    own = masked.terms(params=1, coordinates=1, bits=6, reach=2, grid=1.0)
    q = np.array([1, 1, 1, 1, 1, 1], np.int32)
    made = update.read(update.mask(q.copy(), own, "dev-1", KEY), own)
    north = masked.helper()
    seed = sealed.open_sealed(made.boxes[0], own.digest, "dev-1", north.public, north.private)
    for guess in range(-2, 3):
        q[0] = guess
        total = ring.of(q, own.bits)
        masks.add(total, seed, own.digest, "north", "dev-1")
        tried = ring.pack(total, own.bits)
        assert hashlib.sha256(tried).digest() != made.packed_sha256
        assert (sealed.salted(made.salt, tried) == made.packed_sha256) == (guess == 1)
    again = update.read(update.mask(q.copy(), own, "dev-1", KEY), own)
    assert again.salt != made.salt


# ---- the header around it


CONTEXT = Context("plant", 1, masked.RUN, 3, 2, "dev-1", 1)


def test_the_header_of_a_masked_update_tells_nothing():
    blob = UpdateHeader.masked().to_bytes() + payload()
    found = UpdateHeader.from_bytes(blob)
    assert found == UpdateHeader.masked() and found.mode == "train" == UpdateHeader.mode_of(blob)
    assert blob[:4] == b"\x02\x03\x28\x00" and not any(blob[4:32])
    signed = sign(blob, CONTEXT, KEY)
    check(signed, CONTEXT, KEY.public)
    assert UpdateHeader.from_bytes(signed).is_masked


@pytest.mark.parametrize("at", range(4, 32))
def test_a_masked_update_that_tells_something_is_refused(at):
    blob = bytearray(UpdateHeader.masked().to_bytes() + payload())
    blob[at] = 1
    with pytest.raises(ProtocolError) as caught:
        UpdateHeader.from_bytes(bytes(blob))
    assert caught.value.code in ("header", "finite")


def test_a_masked_update_without_a_vector_is_refused():
    with pytest.raises(ProtocolError, match="from 0 examples"):
        UpdateHeader.from_bytes(UpdateHeader.masked().to_bytes())


def test_a_masked_update_is_signed_as_one():
    """Its signature is of no use for the same bytes with another kind."""
    signed = bytearray(sign(UpdateHeader.masked().to_bytes() + payload(), CONTEXT, KEY))
    signed[1] = 0
    with pytest.raises(NotSigned):
        check(bytes(signed), CONTEXT, KEY.public)


def test_masking_loads_neither_openssl_nor_a_generator():
    """hashlib's BLAKE2b brings OpenSSL, and a NumPy generator 2 MB more: an agent has neither."""
    code = (
        "import os, sys, numpy as np\n"
        "from edgefl.masking import update, vector\n"
        "from edgefl.protocol.terms import Terms\n"
        "from edgefl.trust.ed25519 import SigningKey\n"
        f"own = Terms.read({OWN.text!r})\n"
        "q = vector.quantize(np.ones(100, np.float32), 1, own, os.urandom).q\n"
        "assert update.mask(q, own, 'dev-1', SigningKey(b'k' * 32))\n"
        "print([name for name in ('_hashlib', '_ssl', 'numpy.random') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stdout + done.stderr
