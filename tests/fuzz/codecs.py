"""The decoders of every codec: a payload is counted whole, or refused and leaves no trace in the sum.

The first byte chooses the codec and the model's size. A finding, beside a crash: an exception other than CodecError, an
accumulator that a refused payload has changed, or one that differs from the decoded vector.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from edgefl import _core, codecs
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.core.plan import Param
from edgefl.errors import CodecError

SIZES = {
    0: (),
    5: (Param("b", [5]),),
    300: (Param("w", [10, 28]), Param("b", [20])),
    3000: (Param("w", [50, 50]), Param("b", [50]), Param("v", [10, 40]), Param("mean", [50], False)),
    8120: (Param("w", [200, 40]), Param("k", [4, 30])),
    70_000: (Param("w", [69_990, 1]), Param("b", [10])),
}
LARGEST = 2.0**30  # of a decoded coordinate for which sums are compared


class Target:
    """One codec on one model."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.codec = self.of({})

    def of(self, options: dict[str, float]) -> codecs.Codec:
        """The codec for this model, which writes the newest forms; all forms are read."""
        codec = codecs.get(self.name, **options).for_tensors(SIZES[self.size])
        return codec.with_forms(codec.FORMS)

    def seeds(self) -> list[bytes]:
        rng = np.random.default_rng(self.size)
        wild = rng.standard_t(1.5, size=self.size).astype(np.float32)
        deltas = [wild, np.zeros(self.size, np.float32), np.where(rng.random(self.size) < 0.9, 0, wild), wild * 1e-40]
        payloads = [self.codec.encode(delta.astype(np.float32)) for delta in deltas]
        fine = self.of({"step": 3.0} if hasattr(self.codec, "step") else {})
        structured = self.of_rows(wild)
        return [*payloads, fine.encode(structured), fine.with_forms([]).encode(structured)]

    def of_rows(self, wild: np.ndarray) -> np.ndarray:
        """(size,) float32 where runs of forty coordinates are alike: what has energies."""
        octaves = np.random.default_rng(1).integers(-8, 1, self.size // 40 + 1)
        return (np.clip(wild, -3, 3) * np.exp2(np.repeat(octaves, 40)[: self.size])).astype(np.float32)

    def run(self, payload: bytes) -> str:
        """How it ended; AssertionError or any other exception is a finding."""
        accumulator = Accumulator(self.size)
        try:
            self.codec.accumulate(payload, 3, accumulator)
        except CodecError as error:
            assert not accumulator.acc.any() and accumulator.count == accumulator.weight == 0
            how = re.sub(r"[0-9.e+-]+", "#", str(error))
        else:
            how = "counted"
        try:
            back = self.codec.decode(payload, self.size)
        except CodecError:
            assert how != "counted"
            return how
        assert back.shape == (self.size,) and np.isfinite(back).all()
        if how == "counted" and np.abs(back).max(initial=0) < LARGEST:
            assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * 3).all()
        return how


@cache
def targets() -> list[Target]:
    return [Target(name, size) for name in codecs.CODECS for size in SIZES]


def seeds() -> list[bytes]:
    return [bytes([index]) + payload for index, target in enumerate(targets()) for payload in target.seeds()]


def mend(data: bytes) -> bytes:
    """With the right CRC32C in front, where the codec has one."""
    if len(data) < 5 or targets()[data[0] % len(targets())].name == "raw32":
        return data
    return b"".join((data[:1], _core.crc32c(data[5:]).to_bytes(4, "little"), data[5:]))


def run(data: bytes) -> str:
    """How it ended."""
    return targets()[data[0] % len(targets())].run(data[1:]) if data else "nothing"
