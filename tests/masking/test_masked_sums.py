"""Sums of masked vectors: minus the masks they are the plain integer sums, bit for bit, whoever is missing."""

from __future__ import annotations

import hashlib
from itertools import product

import masked
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.errors import ProtocolError
from edgefl.masking import masks, ring, sealed, update
from edgefl.masking.vector import mean

DEVICES = [f"dev-{i:02}" for i in range(12)]


def fleet(own, seed=0):
    rng = np.random.default_rng(seed)
    plain = {device: masked.vector(own, rng) for device in DEVICES}
    return plain, {device: masked.masked(own, device, q) for device, q in plain.items()}


def test_i35_all_4096_dropout_patterns_open_to_the_plain_sum():
    own = masked.terms(bits=12, coordinates=7)
    plain, sent = fleet(own)
    keys = masked.helper()
    seeds = {
        device: sealed.open_sealed(each.boxes[0], own.digest, device, keys.public, keys.private)
        for device, each in sent.items()
    }
    vectors = {device: ring.unpack(each.packed, own.length, own.bits) for device, each in sent.items()}
    hidden = {
        device: masks.expand(seed, own.digest, "north", device, n=own.length, bits=own.bits)
        for device, seed in seeds.items()
    }
    for pattern in product((False, True), repeat=len(DEVICES)):
        there = [device for device, is_there in zip(DEVICES, pattern, strict=True) if is_there]
        total = np.zeros(own.length, np.uint32)
        for device in there:
            total += vectors[device] - hidden[device]
        expected = sum((plain[device].astype(np.int64) for device in there), np.zeros(own.length, np.int64))
        assert (ring.centre(total, own.bits) == expected).all(), there


@settings(max_examples=40, deadline=None)
@given(st.permutations(DEVICES), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_any_order_and_any_number_of_helpers(order, count, number, seed):
    helpers = tuple(masked.helper(f"helper-{i}") for i in range(number))
    own = masked.terms(helpers, scores=True, norm2=40_000, weights=5)
    plain, sent = fleet(own, seed)
    there = {device: sent[device] for device in order[:count]}
    answers = [masked.answer(own, each, dict(sorted(there.items()))) for each in helpers]
    total = masked.opened(own, there, answers)
    assert (total == sum(plain[device].astype(np.int64) for device in there)).all()
    assert mean(total, own).count == count


def test_one_helper_short_opens_nothing():
    """Two helpers' masks, one answer: what is opened is not the sum, and its checks say so."""
    helpers = masked.helper("north"), masked.helper("south")
    own = masked.terms(helpers)
    _, sent = fleet(own)
    total = masked.opened(own, sent, [masked.answer(own, helpers[0], sent)])
    with pytest.raises(ProtocolError) as caught:
        mean(total, own)
    assert caught.value.code == "sum"


def test_another_set_than_the_counted_one_opens_nothing():
    own = masked.terms()
    _, sent = fleet(own)
    fewer = dict(list(sent.items())[:-1])
    with pytest.raises(ProtocolError, match="do not add up to a count"):
        mean(masked.opened(own, sent, [masked.answer(own, masked.helper(), fewer)]), own)


def test_no_mask_is_used_twice():
    """Two encodings of the same vector for the same terms: other seeds, other masks."""
    own = masked.terms()
    q = masked.vector(own, np.random.default_rng(0))
    made = [masked.masked(own, "dev-00", q) for _ in range(50)]
    assert len({each.packed for each in made}) == len({each.boxes for each in made}) == 50


def test_seeds_are_fresh_from_the_randomness_and_of_256_bits():
    asked = []

    def randomness(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked)]) * size

    own = masked.terms((masked.helper("north"), masked.helper("south")))
    q = masked.vector(own, np.random.default_rng(0))
    for _ in range(3):
        update.mask(q.copy(), own, "dev-00", masked.device_key("dev-00"), randomness)
    assert asked == [32] * 9  # two seeds and a salt each
    with pytest.raises(ValueError, match="randomness of 31"):
        update.mask(q.copy(), own, "dev-00", masked.device_key("dev-00"), lambda size: bytes(size - 1))


def test_streams_differ_by_seed_terms_helper_and_device():
    seed, digest = b"s" * 32, b"h" * 32
    base = masks.expand(seed, digest, "north", "dev-1", n=64, bits=32)
    others = [
        (b"t" * 32, digest, "north", "dev-1"), (seed, b"i" * 32, "north", "dev-1"), (seed, digest, "south", "dev-1"),
        (seed, digest, "north", "dev-2"), (seed, digest, "northd", "ev-1"), (seed, digest, "nort", "hdev-1"),
    ]  # fmt: skip
    for other in others:
        made = masks.expand(*other, n=64, bits=32)
        assert (made == base).mean() < 0.1, other


def test_a_shorter_mask_is_the_head_of_a_longer_one_and_pieces_go_on():
    args = b"s" * 32, b"h" * 32, "north", "dev-1"
    n = 2 * masks.PIECE // 4 + 5
    whole = masks.expand(*args, n=n, bits=32)
    for short in (1, 17, masks.PIECE // 4 - 1, masks.PIECE // 4, masks.PIECE // 4 + 1):
        assert (masks.expand(*args, n=short, bits=32) == whole[:short]).all()
    first, second = whole[: masks.PIECE // 4], whole[masks.PIECE // 4 : masks.PIECE // 2]
    assert (first != second).any()
    assert (masks.expand(*args, n=n, bits=9) == (whole & np.uint32(511))).all()


def test_masks_are_uniform():
    """Every value of m = 4 bits in every place as often as any other: chi-square below its 1 - 1e-6 quantile."""
    counts = np.zeros((8, 16), np.int64)
    for i in range(3000):
        seed = i.to_bytes(32, "little")
        made = masks.expand(seed, b"h" * 32, "north", "dev-1", n=8, bits=4)
        counts[np.arange(8), made] += 1
    expected = 3000 / 16
    chi2 = ((counts - expected) ** 2 / expected).sum(1)
    assert chi2.max() < 56.5, chi2  # 15 degrees of freedom


def test_the_mask_has_known_bits():
    """What a device adds, a helper of any later version must subtract: BLAKE2b, then ChaCha20 by another library."""
    seed, digest = bytes(range(32)), bytes(range(32, 64))
    n = masks.PIECE // 4 + 3
    made = masks.expand(seed, digest, "north", "dev-1", n=n, bits=32)
    key = hashlib.blake2b(digest + b"\x05northdev-1", digest_size=32, key=seed, person=b"edgefl mask 1").digest()
    stream = b""
    for piece, size in enumerate((masks.PIECE, 12)):
        counter_and_nonce = (1).to_bytes(4, "little") + piece.to_bytes(12, "little")  # block 0 makes the AEAD's tag
        stream += Cipher(algorithms.ChaCha20(key, counter_and_nonce), None).encryptor().update(bytes(size))
    assert made.tobytes() == stream
    assert [f"{each:08x}" for each in made[:4]] == ["ae61348b", "e8c7d259", "5e83ef3a", "c490171e"]
