"""Views: what the aggregator and a helper see does not depend on any single input, given the sum.

At m = 4 bits and two coordinates all masks are enumerated: 256 for each device and helper. A view is what one party
can see of a whole round; its distribution is over the masks, which are uniform: test_masked_sums.py.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from masked import device_key, helper, terms

from edgefl.masking import ring, sealed, update
from edgefl.masking.exchange import Ask, Entry

BITS, N = 4, 2
ALL = np.array(list(product(range(16), repeat=N)), np.uint32)  # (256, 2)


def on_the_wire(vectors: np.ndarray) -> np.ndarray:
    """(...,) the number that each vector's one packed byte is."""
    packed = [ring.pack(each, BITS) for each in ALL]
    assert sorted(packed) == [bytes([i]) for i in range(256)]
    table = np.zeros((16, 16), np.int64)
    for each, (byte,) in zip(ALL, packed, strict=True):
        table[tuple(each)] = byte
    return table[vectors[..., 0], vectors[..., 1]]


def masked(x: tuple[int, int], masks: np.ndarray) -> np.ndarray:
    return (ring.of(np.array(x), BITS) + masks) & np.uint32(15)


def counted(*seen: np.ndarray) -> np.ndarray:
    """How often each view is seen: views are tuples of bytes."""
    whole = np.zeros(np.broadcast(*seen).shape, np.int64)
    for each in seen:
        whole = whole * 256 + each
    return np.bincount(whole.ravel(), minlength=256 ** len(seen))


def aggregator_view(first: tuple[int, int], second: tuple[int, int]) -> np.ndarray:
    """Both masked vectors and the helper's answer, over all 65,536 pairs of masks."""
    answers = (ALL[:, None] + ALL) & np.uint32(15)
    one, two = on_the_wire(masked(first, ALL)), on_the_wire(masked(second, ALL))
    return counted(one[:, None], two, on_the_wire(answers))


def test_the_aggregator_sees_the_sum_and_nothing_else():
    """Inputs of one sum give one distribution, those of another sum another."""
    base = aggregator_view((1, -2), (3, 4))
    assert base.sum() == 65_536
    for first, second in (((3, 4), (1, -2)), ((4, 2), (0, 0)), ((-8, 5), (-4, -3)), ((7, -8), (-3, -6))):
        assert (aggregator_view(first, second) == base).all()
    assert (aggregator_view((1, -2), (3, 5)) != base).any()


def test_a_device_that_is_not_opened_shows_nothing():
    """Its masked vector, without any answer that has its mask, is uniform whatever it holds."""
    for x in ALL:
        assert set(counted(on_the_wire(masked(tuple(x), ALL)))) == {1}


def test_a_helper_sees_masks_that_do_not_depend_on_inputs():
    """Of two vectors under the same randomness, what it is shown differs in digest and signature alone, and in what a
    sealed box draws for itself; the seeds in there are the same, and no vector is in the ask."""
    own, north, vectors, seen = terms(), helper(), [], []
    for value in (-7, 50):
        q = np.full(own.length, value, np.int32)
        numbers = np.random.default_rng(5)
        sent = update.read(update.mask(q.copy(), own, "a", device_key("a"), numbers.bytes), own)
        ask = Ask(own.text, 1, (Entry("a", sent.packed_sha256, sent.signature, sent.boxes),))
        raw = ask.to_bytes()
        vectors.append(bytes(sent.packed))
        assert vectors[-1] not in raw and sent.salt not in raw
        for taken in (sent.packed_sha256, sent.signature, *sent.boxes):
            raw = raw.replace(taken, b"")
        seen.append((raw, sealed.open_sealed(sent.boxes[0], own.digest, "a", north.public, north.private)))
    assert vectors[0] != vectors[1]  # what it is not shown would tell
    assert seen[0] == seen[1]


@pytest.mark.parametrize("bad", [0, 1])
def test_a_helper_with_the_aggregator_learns_nothing_if_the_other_is_honest(bad):
    """One device, two helpers, one of which gives all its masks away: the vector is still uniform beside them."""
    masks = ALL[:, None], ALL[None, :]
    for x in ((0, 0), (5, -3)):
        seen = on_the_wire(masked(x, masks[0] + masks[1]))
        assert set(counted(seen, on_the_wire(np.broadcast_to(masks[bad], (256, 256, 2))))) == {1}


def test_one_mask_for_two_devices_would_be_found():
    """The views would differ if both devices added the same mask."""

    def broken(first, second):
        one, two = on_the_wire(masked(first, ALL)), on_the_wire(masked(second, ALL))
        return counted(one, two, on_the_wire((ALL + ALL) & np.uint32(15)))

    assert (broken((1, -2), (3, 4)) != broken((4, 2), (0, 0))).any()
