"""Params as bytes: (P,) little-endian float32, and the hashes that prove them."""

from __future__ import annotations

import numpy as np

from ..digests import sha256

DIGEST = 16  # hex digits that tell versions of a model apart


def params_to_bytes(params: np.ndarray) -> bytes:
    """The (P,) params as little-endian float32."""
    return params.astype("<f4", copy=False).tobytes()


def params_from_bytes(blob: bytes) -> np.ndarray:
    """(P,) float32 from little-endian bytes; a read-only view on little-endian machines."""
    return np.frombuffer(blob, "<f4").astype(np.float32, copy=False)


def params_sha256(params: np.ndarray) -> str:
    """SHA-256, hex, of the (P,) params as little-endian float32."""
    return sha256(np.ascontiguousarray(params, "<f4").data).hexdigest()


def l2_norm(x: np.ndarray) -> float:
    """The L2 norm of (n,) `x`, to the bit that of numpy.linalg.norm, which would load LAPACK."""
    return float(np.sqrt(np.dot(x, x)))


def sha256_of(blob: bytes) -> str:
    """SHA-256, hex, of params' bytes."""
    return sha256(blob).hexdigest()


def digest_of(blob: bytes) -> str:
    """The first DIGEST hex digits of the SHA-256 of params' bytes, as frames have it."""
    return sha256_of(blob)[:DIGEST]


def to_bfloat16(params: np.ndarray) -> np.ndarray:
    """(P,) float32 rounded to eight significant bits: to nearest, ties to even. Finite numbers stay finite."""
    bits = params.view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)) & np.uint32(0xFFFF0000)
    cut = bits & np.uint32(0xFFFF0000)
    rounded: np.ndarray = np.where(np.isfinite(nearest.view(np.float32)), nearest, cut)
    return rounded.view(np.float32)
