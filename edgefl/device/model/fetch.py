"""ModelFetch: how a device gets a round's model in the fewest bytes, from what it holds and what the broker has.

The round names frames that lead to its version. The device starts at a frame that it holds or at a keyframe, whichever
costs fewer bytes (way.py). It fetches and decodes one payload after another, and checks each result by its digest.
Before the first keyframe it fetches the base, the params that no training changes, if the manifest has one and the
device lacks it. Part of DeviceSession; no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from ...codecs import Codec
from ...core.params import DIGEST, digest_of, params_from_bytes, params_to_bytes, sha256_of
from ...errors import CodecError
from ...machine import Note, Subscribe
from ...protocol.manifest import Manifest
from ...protocol.round import Frame, Round
from ...protocol.topics import BASE_SLOT, ModelTopic, Topics
from ..events import Action, KeepBase
from ..patience import Patience
from ..shelf import Proven, Shelf
from .blob_fetch import WINDOW, BlobFetch
from .frozen import Frozen
from .way import BASE, Piece, onward, shortest

PATIENCE_S = 30.0  # before asking again, if nothing moves
OTHER_BYTES = 64 * 1024  # that may arrive beside the parts that were asked for


class ModelFetch:
    """Fetches the model of one round. `params`, little-endian float32, with the strategy's side
    vectors behind them (Manifest.sides), is set once the model is whole and proven.

    Of the versions that it decodes on the way it keeps only those that the next round can start from: each is as large
    as the model.
    """

    def __init__(
        self,
        topics: Topics,
        manifest: Manifest,
        federation_hash: int,
        round: Round,
        *,
        held: Mapping[str, bytes],
        patience: Patience,
        now: float,
        shelf: Shelf | None = None,
        frozen: Frozen | None = None,
    ) -> None:
        self.round = round
        self._frozen = frozen or Frozen()
        self._patience, self._shelf = patience, shelf or Shelf()
        self._enough = 0  # received bytes at which all that was asked for would have come twice
        self.params: bytes | None = None
        self._passed: dict[str, bytes] = {}
        self._topics = topics
        self._manifest = manifest
        self._hash = federation_hash
        self._keyframe, self._delta = manifest.model_codecs
        self._held = held
        self._round_is_old = False  # since a part of another version has come; `ask` tries again
        self._start(now)

    def _start(self, now: float) -> None:
        """Choose the way: `_base` is the params to start from, `_ahead` the payloads to fetch."""
        self._base, self._ahead = self._way()
        self._next_blob()
        self._wait(now)

    def _way(self) -> tuple[bytes, deque[Piece]]:
        """What to start from, b"" for a keyframe, and what to fetch."""
        frames = self.round.frames
        way = shortest(frames, self._held)
        lacks = way.whole and self._lacks_base()
        if lacks:
            way = shortest(frames, self._held, self._base_size)
        ahead = deque(way.pieces(frames))
        if not way.whole:
            return self._held[frames[way.start].digest], ahead
        if lacks:
            ahead.appendleft(BASE)
        return b"", ahead

    @property
    def _base_size(self) -> int:
        """Bytes of the base's payload."""
        return self._manifest.base.size if self._manifest.base else 0

    def _lacks_base(self) -> bool:
        """Whether a keyframe is of no use before the base has come."""
        return self._manifest.base is not None and self._frozen.of(self._manifest, self._held) is None

    def _wait(self, now: float) -> None:
        self._patience.begin()
        self.wake_at = now + PATIENCE_S

    @property
    def _window(self) -> int:
        return self._patience.asked_at_once(self._manifest.part_bytes, WINDOW)

    def _next_blob(self) -> None:
        if not self._ahead:
            self.params = self._base
            return
        self._piece = piece = self._ahead.popleft()
        frame = piece.frame
        if frame is None:
            slot, version, size, codec = BASE_SLOT, 0, self._base_size, self._manifest.base_codec
        else:
            slot = frame.delta_slot if piece.is_delta else frame.keyframe_slot
            version, size, codec = frame.version, piece.length, self._codec(piece)
        self._blob = BlobFetch(
            self._topics, slot, federation=self._hash, version=version, codec=codec.wire_id,
            part_bytes=self._manifest.part_bytes, size=size, window=self._window, shelf=self._shelf,
        )  # fmt: skip

    def _codec(self, piece: Piece) -> Codec:
        """The codec of a frame's payload."""
        codec = self._delta if piece.is_delta else self._keyframe
        assert codec is not None
        return codec

    @property
    def payloads(self) -> list[int]:
        """The lengths of the payloads that are still to come; of the one that is under way, what it lacks."""
        if self.params is not None:
            return []
        return [self._blob.lacks, *(piece.length for piece in self._ahead)]

    @property
    def kept(self) -> dict[str, bytes]:
        """The params, held or decoded, that the next round's frames can start from: the newest and its anchor."""
        found = {**self._held, **self._passed}
        return {digest: found[digest] for digest in self._last if digest in found}

    @property
    def _last(self) -> list[str]:
        """The digests of the newest frame and its anchor."""
        return [frame.digest for frame in self.round.frames[-1 if self._manifest.span == 1 else -2 :]]

    def ask(self, now: float) -> list[Action]:
        """Subscribe to the parts that are due: at the start, on a new connection, and when patience has ended."""
        self._wait(now)
        self._enough = self._patience.received + 2 * self._blob.outstanding + OTHER_BYTES
        self._round_is_old = False
        return self._blob.ask()

    on_connected = ask

    def on_tick(self, now: float) -> list[Action]:
        """Patience has ended: ask again, unless what was asked for may still be arriving."""
        if self._patience.received < self._enough and self._patience.extend():
            self.wake_at = now + PATIENCE_S
            return []
        return self.ask(now)

    def on_disconnected(self) -> None:
        """Subscriptions are void: `on_connected` repeats them."""

    def follow(self, round: Round) -> None:
        """The same round has been announced again."""
        self.round = round

    def redirect(self, round: Round) -> bool:
        """Fetch the model of a later round instead, if the payload that is under way leads there too. What has come of
        the payload counts: on a slow link no fetch would ever end in a fleet whose rounds are shorter."""
        if self._piece.frame is None:
            before, self.round = self.round, round
            start, way = self._way()
            if way and way[0] == BASE:
                way.popleft()
                self._base, self._ahead = start, way
                return True
            self.round = before
            return False
        ahead = onward(round.frames, self._piece)
        if ahead is None:
            return False
        self.round, self._ahead = round, deque(ahead)
        return True

    @property
    def reached(self) -> dict[str, bytes]:
        """The params that it has come to so far: another fetch may start from them."""
        return {**self._passed, **({digest_of(self._base): self._base} if self._base else {})}

    def cancel(self) -> list[Action]:
        """Leave no subscription behind."""
        return self._blob.cancel()

    def on_part(self, topic: ModelTopic, payload: bytes, now: float) -> list[Action]:
        """Take in the part that came on `topic`; ProtocolError if it does not belong there.

        A part of another version shows that its slot has been reused, so this round may be over: it is read again.
        """
        if not self._blob.wants(topic):
            return []  # it was asked for by a fetch that is over
        envelope = self._blob.read(topic.part, payload)
        if envelope is None:
            asked, self._round_is_old = self._round_is_old, True
            return [] if asked else [Subscribe((self._topics.round,))]
        out = [*self._blob.add(envelope), *self._blob.widen(self._window)]
        self._wait(now)
        self._enough = self._patience.received + 2 * self._blob.outstanding + OTHER_BYTES
        return [*out, *self._step(now)] if self._blob.ended else out

    def _step(self, now: float) -> list[Action]:
        """A payload is complete: decode it, and fetch the next one."""
        frame = self._piece.frame
        if frame is None:
            return self._on_base(now)
        proven = self._shelf.model(frame.digest) or self._decode(frame)
        if proven is None:
            return self._restart(now)
        self._base = self._shelf.keep(proven)
        if frame.digest in self._last:
            self._passed[frame.digest] = self._base
        if not self._ahead and proven.sha256 != self.round.model_sha256:
            return self._restart(now)
        self._next_blob()
        return [] if self.params is not None else self.ask(now)

    def _on_base(self, now: float) -> list[Action]:
        """The base is complete: what it says is kept, and the keyframe is next."""
        base, blob = self._manifest.base, self._blob.blob()
        assert base is not None
        proven = self._shelf.model(base.sha256[:DIGEST])
        if proven is None and blob is not None:
            try:
                numbers = self._manifest.base_codec.decode(blob, self._manifest.moving.num_personal)
                proven = Proven(base.sha256, params_to_bytes(numbers))
            except CodecError:
                proven = None
            if proven is not None and sha256_of(proven.params) != base.sha256:
                proven = None
        if proven is None:
            return self._restart(now)
        numbers_kept = self._shelf.keep(proven)
        self._frozen.keep(numbers_kept)
        self._next_blob()
        return [KeepBase(base.sha256, numbers_kept), *self.ask(now)]

    def _decode(self, frame: Frame) -> Proven | None:
        """The params of this frame; None if they don't have its digest."""
        blob = self._blob.blob()
        if blob is None:
            return None
        num_params = self._manifest.model_size
        try:
            moved = self._codec(self._piece).decode(blob, num_params)
        except CodecError:
            return None
        params = self._whole(moved)
        if params is None:
            return None
        decoded = params_to_bytes(params)
        sha256 = sha256_of(decoded)
        return Proven(sha256, decoded) if sha256[:DIGEST] == frame.digest else None

    def _whole(self, moved: np.ndarray) -> np.ndarray | None:
        """The whole model, of what has come of it, and of what the device has; None if it has no base any more."""
        moving = self._manifest.moving
        if self._piece.is_delta:
            start = params_from_bytes(self._base)
            return moving.with_shared(start, moving.shared(start) + moved)
        if moving.shares_all:
            return moved
        numbers = self._frozen.of(self._manifest, self._held)
        if numbers is None:
            return None
        whole = np.empty(moving.num_params, np.float32)
        return moving.with_own(moving.with_shared(whole, moved), params_from_bytes(numbers))

    def _restart(self, now: float) -> list[Action]:
        """Fetch from a keyframe. If that has been tried already, wait until patience ends: the broker may be healed."""
        what = "the base" if self._piece.frame is None else f"model {self._piece.frame.version}"
        note = Note("warning", f"{what}: SHA-256 is not the one that was told; it is fetched again")
        tried = not self._held
        if self._manifest.base is not None and (numbers := self._frozen.of(self._manifest, self._held)) is not None:
            self._frozen.keep(numbers)  # proven by itself, whatever the model was that had it
        self._held, self._passed = {}, {}
        self._start(now)
        return [note] if tried else [note, *self.ask(now)]
