"""Error feedback: what a codec took from one update is added to the next, so that in the sum nothing is lost.

    target = delta + residual,    payload = encode(target),    residual = target - decode(payload)

With it, codecs that lose systematically converge as if they lost nothing; without, they may stall (Seide et al. 2014;
Stich et al. 2018, arXiv:1809.07599; Karimireddy et al. 2019, arXiv:1901.09847). The residual stays on the device.

The residual of an update becomes the device's only if the update has been counted. One that never was is lost whole, as
it would be without a codec, and the residual before it holds on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from .._core import crc32c
from ..errors import CodecError
from . import Codec

# A residual is a step that was due on an older model. A device that is drawn every tenth round keeps its own (it is
# away for longer once in 200 times, 0.9^50); one that is drawn every fiftieth loses it a third of the time, which on
# digits cost no accuracy, saved a sixth of the bytes, and with steps of 12 rms was better than to keep it for ever.
FEEDBACK_ROUNDS = 50
log = logging.getLogger("edgefl.training")


@dataclass(frozen=True)
class Residual:
    """A residual as it lies on disk: (P,) little-endian float32 and their CRC-32C, left by `round` of `manifest`."""

    manifest: str
    round: int
    blob: bytes
    crc: int

    @classmethod
    def of(cls, manifest: str, round: int, blob: bytes) -> Residual:
        return cls(manifest, round, blob, crc32c(blob))

    def usable(self, manifest: str, round: int, num_params: int) -> np.ndarray | None:
        """The (P,) float32, if it is sound and serves this round; else None, and the log says why."""
        if self.manifest != manifest or not 0 < round - self.round <= FEEDBACK_ROUNDS:
            log.info("the residual of round %d is too old for round %d, or another run's: dropped", self.round, round)
            return None
        if len(self.blob) != 4 * num_params or crc32c(self.blob) != self.crc:
            log.warning("the residual of round %d is damaged on disk: dropped", self.round)
            return None
        return np.frombuffer(self.blob, "<f4").astype(np.float32)


def encode(codec: Codec, delta: np.ndarray, residual: np.ndarray | None) -> tuple[bytes, bytes | None]:
    """The payload of `delta` + `residual`, both (P,) float32, and the residual it leaves, little-endian float32.

    `residual` is overwritten: on a small device each vector counts. One with which the codec can't write the update
    (not finite, too large) is dropped. None is left where the loss is not finite. Raises CodecError if it is the delta
    that can't be written.
    """
    payload, target = None, delta
    if residual is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            target = np.add(delta, residual, out=residual)
        try:
            payload = codec.encode(target, codec.step_rms(delta, target))
        except CodecError as error:
            log.warning("the residual is dropped: %s", error)
            target = delta
    if payload is None:
        payload = codec.encode(delta)
    left = np.subtract(target, codec.decode(payload, len(delta)), out=residual)
    return payload, left.astype("<f4", copy=False).tobytes() if np.isfinite(left).all() else None
