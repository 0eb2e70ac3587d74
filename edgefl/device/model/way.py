"""The way to a round's model: which payloads lead there in the fewest bytes, from what a device holds. No I/O.

A round names frames: deltas, each from the frame before, and keyframes (coordinator/model/downlink.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ...core.params import DIGEST
from ...errors import ProtocolError
from ...protocol.manifest import Manifest
from ...protocol.round import Frame, Round


def check_frames(round: Round, manifest: Manifest) -> None:
    """ProtocolError if the round's frames don't lead to its version, or are longer than the plan allows."""
    keyframe, delta = manifest.model_codecs
    num_params = manifest.model_size
    last = round.frames[-1]
    if (last.version, last.digest) != (round.version, round.model_sha256[:DIGEST]):
        raise ProtocolError(f"round {round.round}: its frames lead to version {last.version}, not {round.version}")
    newest = max((index for index, frame in enumerate(round.frames) if frame.keyframe), default=None)
    if newest is None or not _has_deltas(round.frames[newest + 1 :]):
        raise ProtocolError(f"round {round.round}: its frames lead nowhere without a model that is held already")
    longest = delta.bound(num_params) if delta else 0
    for frame in round.frames:
        if frame.keyframe > keyframe.bound(num_params) or frame.delta > longest:
            size = max(frame.keyframe, frame.delta)
            raise ProtocolError(f"round {round.round}: a frame of {size} bytes is longer than the plan allows")


def _has_deltas(frames: list[Frame]) -> bool:
    return all(frame.delta for frame in frames)


class Piece(NamedTuple):
    """A payload on the way: a frame's delta or keyframe, or the base, which belongs to no frame."""

    frame: Frame | None = None
    is_delta: bool = False

    @property
    def length(self) -> int:
        assert self.frame is not None
        return self.frame.delta if self.is_delta else self.frame.keyframe

    @property
    def payload(self) -> tuple[int, str, int, int]:
        """What makes it the same in the message of another round."""
        assert self.frame is not None
        slot = self.frame.delta_slot if self.is_delta else self.frame.keyframe_slot
        return self.frame.version, self.frame.digest, self.length, slot


BASE = Piece()


class Way(NamedTuple):
    """A way of so many bytes from the frame at `start`: `whole`, from its keyframe, or from the params held of it."""

    size: int
    start: int
    whole: bool

    def pieces(self, frames: list[Frame]) -> list[Piece]:
        """The payloads to fetch, but for the base."""
        first = [Piece(frames[self.start])] if self.whole else []
        return [*first, *(Piece(frame, True) for frame in frames[self.start + 1 :])]


def shortest(frames: list[Frame], held: Collection[str], more: int = 0) -> Way:
    """The shortest way; a keyframe takes so many bytes `more`. `held` are digests of params."""
    ways = []
    for index, frame in enumerate(frames):
        after = frames[index + 1 :]
        if not _has_deltas(after):
            continue
        rest = sum(later.delta for later in after)
        if frame.digest in held:
            ways.append(Way(rest, index, False))
        if frame.keyframe:
            ways.append(Way(rest + frame.keyframe + more, index, True))
    return min(ways)  # check_frames has found a keyframe


def onward(frames: list[Frame], piece: Piece) -> list[Piece] | None:
    """The payloads that follow `piece` on the way to the last of these frames; None if it does not lead there."""
    for index, frame in enumerate(frames):
        after = frames[index + 1 :]
        if Piece(frame, piece.is_delta).payload == piece.payload and _has_deltas(after):
            return [Piece(later, True) for later in after]
    return None
