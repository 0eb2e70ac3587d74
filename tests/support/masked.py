"""Terms, helpers and devices of a masked round, for tests."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

from edgefl.masking import masks, ring, sealed, update
from edgefl.protocol.terms import Party, Terms
from edgefl.trust.ed25519 import SigningKey, to_text

FEDERATION, RUN = "plant", "00112233445566aa"


class Helper(NamedTuple):
    """A helper's keys, private ones too."""

    name: str
    public: bytes
    private: bytes
    key: SigningKey

    @property
    def party(self) -> Party:
        return Party(self.name, 1, to_text(self.public), to_text(self.key.public))


def helper(name: str = "north") -> Helper:
    seed = hashlib.sha256(name.encode()).digest()
    return Helper(name, *sealed.new_box_key(seed), SigningKey(seed))


def device_key(device: str) -> SigningKey:
    return SigningKey(hashlib.sha256(b"device " + device.encode()).digest())


def terms(helpers: tuple[Helper, ...] = (helper(),), **changes: Any) -> Terms:
    """Terms as a device reads them: twelve devices at most, 40 of 100 params."""
    fields: dict[str, Any] = {
        "federation": FEDERATION, "run": RUN, "round": 3, "version": 2, "model_sha256": "ab" * 32,
        "manifest": "cd" * 8, "params": 100, "coordinates": 40, "seed": 5, "bits": 12, "reach": 100, "grid": 0.01,
        "clip": 1.0, "norm2": 20_000, "least": 2, "most": 12,
        "helpers": tuple(getattr(each, "party", each) for each in helpers),
    }  # fmt: skip
    return Terms.read(Terms(**fields | changes).raw.decode())


def vector(own: Terms, rng: np.random.Generator) -> np.ndarray:
    """(L,) int32 that an honest device may send."""
    q = np.ones(own.length, np.int32)
    q[: own.coordinates] = rng.integers(-own.reach, own.reach + 1, own.coordinates)
    q[own.at_weight] = rng.integers(1, own.weights + 1)
    if own.scores:
        q[own.at_scores] = rng.integers(0, own.most_score + 1, 3)
    return q


def masked(own: Terms, device: str, q: np.ndarray) -> update.MaskedUpdate:
    """What the aggregator reads of a device's update."""
    return update.read(update.mask(q.copy(), own, device, device_key(device)), own)


def answer(own: Terms, each: Helper, updates: dict[str, update.MaskedUpdate]) -> bytes:
    """The packed sum of the masks of these devices, as an honest helper without noise opens it."""
    total = np.zeros(own.length, np.uint32)
    at = [party.name for party in own.helpers].index(each.name)
    for device, sent in updates.items():
        seed = sealed.open_sealed(sent.boxes[at], own.digest, device, each.public, each.private)
        masks.add(total, seed, own.digest, each.name, device)
    return ring.pack(total, own.bits)


def opened(own: Terms, updates: dict[str, update.MaskedUpdate], answers: list[bytes]) -> np.ndarray:
    """(L,) int64: the sum of these devices' vectors."""
    total = np.zeros(own.length, np.uint32)
    for sent in updates.values():
        ring.add(total, sent.packed, own.bits)
    for packed in answers:
        total -= ring.unpack(packed, own.length, own.bits)
    return ring.centre(total, own.bits)
