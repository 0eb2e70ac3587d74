"""Error feedback: the error of encoding one update is added to the next, so that nothing is lost in the sum.

    target = delta + residual,    payload = encode(target),    residual = target - decode(payload)

With it, codecs whose errors are systematic converge as if there were no errors; without it, they may stall (Seide
et al. 2014; Stich et al. 2018, arXiv:1809.07599; Karimireddy et al. 2019, arXiv:1901.09847). The residual stays on the
device, in a slot (device/slots.py): a new one replaces the former one only when its update has been counted. An update
that is never counted is lost whole, as it would be without a codec, and the device keeps the residual from before it.
"""

from __future__ import annotations

import logging
import math
import struct

import numpy as np

from ..errors import CodecError
from . import Codec

# A residual was due on an older model, so it expires. A device that is drawn every tenth round nearly always keeps its
# residual (0.9^50 = 0.5 % of its absences are longer). One that is drawn every fiftieth loses it a third of the time.
# On digits that cost no accuracy and saved a sixth of the bytes; with steps of 12 rms it was better than no expiry.
FEEDBACK_ROUNDS = 50
WEIGHT = struct.Struct("<d")  # behind a residual, where updates of one device count differently
log = logging.getLogger("edgefl.training")


def pack(residual: np.ndarray) -> bytes | None:
    """A (P,) float32 as it is stored: a signed byte e, then (P,) little-endian float16, of 2^-e times the residual. e
    brings the largest of them near float16's limit. None if a coordinate is not finite.

    What rounding takes, at most 2^-11 of a coordinate, is lost: it is not a part of the next residual. Overwrites
    `residual`.
    """
    largest = float(np.abs(residual).max(initial=0.0))
    if not math.isfinite(largest):
        return None
    exponent = max(-128, math.frexp(largest)[1] - 15)
    np.ldexp(residual, -exponent, out=residual)
    return struct.pack("b", exponent) + bytes(residual.astype("<f2").data)


def counted(blob: bytes, weight: float) -> bytes:
    """A packed residual, and behind it the `weight` with which the update that left it counts in the sum. Needed where
    the updates of one device have different weights."""
    return blob + WEIGHT.pack(weight)


def recounted(blob: bytes, num_params: int, weight: float, start: int = 0) -> np.ndarray | None:
    """The residual, (P,) float32, for an update whose numbers from `start` on count with `weight`. These are scaled, so
    that they add to the sum what they would have added with the update that left them. None as `unpack`."""
    residual = unpack(blob, num_params)
    if residual is not None and len(blob) == 1 + 2 * num_params + WEIGHT.size:
        (then,) = WEIGHT.unpack_from(blob, 1 + 2 * num_params)
        with np.errstate(over="ignore", invalid="ignore"):  # `encode` drops what is not finite
            residual[start:] *= np.float32(then / weight)
    return residual


def unpack(blob: bytes, num_params: int) -> np.ndarray | None:
    """The (P,) float32 that were packed; None, with a line in the log, if `blob` is not that long. Before `pack`,
    version 0.1.0 stored 4 P bytes of little-endian float32."""
    if len(blob) not in (1 + 2 * num_params, 1 + 2 * num_params + WEIGHT.size, 4 * num_params):
        log.warning("a residual of %d bytes is not that of %d params: dropped", len(blob), num_params)
        return None
    if len(blob) == 4 * num_params:
        return np.frombuffer(blob, "<f4").astype(np.float32)
    (exponent,) = struct.unpack_from("b", blob)
    residual = np.frombuffer(blob, "<f2", num_params, offset=1).astype(np.float32)
    np.ldexp(residual, exponent, out=residual)
    return residual


def encode(codec: Codec, delta: np.ndarray, residual: np.ndarray | None) -> tuple[bytes, bytes | None]:
    """The payload of `delta` + `residual`, both (P,) float32, and the new residual, packed.

    Overwrites `residual`, to save the memory of one more vector. If the codec can't encode the sum (not finite, or too
    large), the residual is dropped and `delta` is encoded alone; CodecError if that fails too. The new residual is None
    if it is not finite.
    """
    payload, target = None, delta
    if residual is not None:
        for run in codec.measured(len(delta)):
            residual[run] = 0  # each device measures them anew; what is owed could take a variance below zero
        with np.errstate(over="ignore", invalid="ignore"):
            target = np.add(delta, residual, out=residual)
        try:
            payload = codec.encode_after(delta, target)
        except CodecError as error:
            log.warning("the residual is dropped: %s", error)
            target = delta
    if payload is None:
        payload = codec.encode(delta)
    return payload, pack(np.subtract(target, codec.decode(payload, len(delta)), out=residual))
