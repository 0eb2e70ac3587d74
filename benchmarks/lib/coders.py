"""What codecs.py compares: EdgeFL's codecs and the baselines at several rates each, and general-purpose libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from baselines import Qsgd, Sign, TopK

from edgefl import codecs
from edgefl.codecs.base import Codec

STEPS = {  # in rms: from four bits a coordinate to a few hundredths
    "ecq": (0.26, 0.55, 1.2, 2.0, 3.2, 5.0, 8.0, 12.0),
    "ecq-sparse": (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0),
}
RATES: dict[str, list[dict[str, Any]]] = {
    **{name: [{"step": step} for step in steps] for name, steps in STEPS.items()},
    "qsgd": [{"bits": bits} for bits in (2, 3, 4, 5, 6, 8)],
    "topk": [{"fraction": share} for share in (0.001, 0.005, 0.01, 0.03, 0.1)],
    "sign": [{}],
}


BASELINES = {"qsgd": Qsgd, "topk": TopK, "sign": Sign}


def make(name: str, **options: Any) -> Codec:
    """The codec or baseline called `name`."""
    return BASELINES[name](**options) if name in BASELINES else codecs.get(name, **options)


@dataclass(frozen=True)
class Coder:
    """A way from (P,) float32 to bytes and back."""

    name: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, int], np.ndarray]


def of_codec(name: str, codec: Codec) -> Coder:
    return Coder(name, codec.encode, codec.decode)


def _rounded(delta: np.ndarray, step: float) -> np.ndarray:
    """(P,) int8 multiples of `step` rms."""
    scale = np.float32(1 / (step * np.sqrt(np.mean(delta * delta)) + 1e-38))
    return np.clip(np.rint(delta * scale), -127, 127).astype(np.int8)


def pcodec_of(step: float) -> Coder:
    """Rounded with NumPy to a step in rms, and what pcodec makes of the integers."""
    from pcodec import ChunkConfig, standalone

    def encode(delta: np.ndarray) -> bytes:
        size = np.float32(step * np.sqrt(np.mean(delta * delta)))
        integers = _rounded(delta, step).astype(np.int16)
        return size.tobytes() + bytes(standalone.simple_compress(integers, ChunkConfig()))

    def decode(data: bytes, num_params: int) -> np.ndarray:
        integers = standalone.simple_decompress(data[4:])
        assert integers is not None and len(integers) == num_params
        return integers.astype(np.float32) * np.frombuffer(data[:4], np.float32)

    return Coder("int8 + pcodec", encode, decode)


def zstd_of(step: float, level: int = 3) -> Coder:
    """Rounded with NumPy to a step in rms, and what zstandard makes of the bytes."""
    import zstandard

    def encode(delta: np.ndarray) -> bytes:
        size = np.float32(step * np.sqrt(np.mean(delta * delta)))
        return size.tobytes() + zstandard.ZstdCompressor(level=level).compress(_rounded(delta, step).tobytes())

    def decode(data: bytes, num_params: int) -> np.ndarray:
        integers = np.frombuffer(zstandard.ZstdDecompressor().decompress(data[4:]), np.int8)
        assert len(integers) == num_params
        return integers.astype(np.float32) * np.frombuffer(data[:4], np.float32)

    return Coder("int8 + zstandard", encode, decode)


def lossless() -> list[Coder]:
    """All of float32: planes, and the two libraries."""
    import zstandard
    from pcodec import ChunkConfig, standalone

    return [
        of_codec("planes", codecs.get("planes")),
        Coder("pcodec", lambda d: bytes(standalone.simple_compress(d, ChunkConfig())),
              lambda b, n: standalone.simple_decompress(b)),
        Coder("zstandard -3", lambda d: zstandard.ZstdCompressor(level=3).compress(d.tobytes()),
              lambda b, n: np.frombuffer(zstandard.ZstdDecompressor().decompress(b), np.float32)),
    ]  # fmt: skip


def nmse(delta: np.ndarray, back: np.ndarray) -> float:
    """The squared error's share of the energy."""
    wide = delta.astype(np.float64)
    return float(np.square(wide - back).sum() / np.square(wide).sum())
