"""ModelFetch: how a device gets a round's model in the fewest bytes, from what it holds and what the broker has.

The round names frames that lead to its version (coordinator/downlink.py): deltas, each from the frame before, and
keyframes. The device starts at a frame that it holds or at a keyframe, whichever costs fewer bytes. It fetches and
decodes one payload after another, and checks each result by its digest. Part of DeviceSession; no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from ..codecs import Codec
from ..core.params import DIGEST, digest_of, params_from_bytes, params_to_bytes, sha256_of
from ..errors import CodecError, ProtocolError
from ..machine import Note, Subscribe
from ..protocol.manifest import Manifest
from ..protocol.round import Frame, Round
from ..protocol.topics import ModelTopic, Topics
from .blob_fetch import WINDOW, BlobFetch
from .events import Action
from .patience import Patience
from .shelf import Proven, Shelf

PATIENCE_S = 30.0  # before asking again, if nothing moves
OTHER_BYTES = 64 * 1024  # that may arrive beside the parts that were asked for


def check_frames(round: Round, manifest: Manifest) -> None:
    """ProtocolError if the round's frames don't lead to its version, or are longer than the plan allows."""
    keyframe, delta = manifest.model_codecs
    num_params = manifest.model_size
    last = round.frames[-1]
    if (last.version, last.digest) != (round.version, round.model_sha256[:DIGEST]):
        raise ProtocolError(f"round {round.round}: its frames lead to version {last.version}, not {round.version}")
    if not any(frame.keyframe for frame in round.frames) or not all(f.delta for f in _after_keyframe(round.frames)):
        raise ProtocolError(f"round {round.round}: its frames lead nowhere without a model that is held already")
    longest = delta.bound(num_params) if delta else 0
    for frame in round.frames:
        if frame.keyframe > keyframe.bound(num_params) or frame.delta > longest:
            size = max(frame.keyframe, frame.delta)
            raise ProtocolError(f"round {round.round}: a frame of {size} bytes is longer than the plan allows")


def _after_keyframe(frames: list[Frame]) -> list[Frame]:
    newest = max((index for index, frame in enumerate(frames) if frame.keyframe), default=0)
    return frames[newest + 1 :]


def _payload(frame: Frame, is_delta: bool) -> tuple[int, str, int, int]:
    """What makes one of the frame's payloads the same in the message of another round."""
    length, slot = (frame.delta, frame.delta_slot) if is_delta else (frame.keyframe, frame.keyframe_slot)
    return frame.version, frame.digest, length, slot


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
    ) -> None:
        self.round = round
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
        frames = self.round.frames
        best: tuple[int, int, bool] | None = None
        for index, frame in enumerate(frames):
            if not all(after.delta for after in frames[index + 1 :]):
                continue
            rest = sum(after.delta for after in frames[index + 1 :])
            if frame.digest in self._held:
                best = min(best or (rest, index, False), (rest, index, False))
            if frame.keyframe:
                best = min(best or (rest + frame.keyframe, index, True), (rest + frame.keyframe, index, True))
        assert best is not None  # check_frames has found a keyframe
        _, start, whole = best
        self._base = b"" if whole else self._held[frames[start].digest]
        self._ahead: deque[tuple[Frame, bool]] = deque((frame, True) for frame in frames[start + 1 :])
        if whole:
            self._ahead.appendleft((frames[start], False))
        self._next_blob()
        self._wait(now)

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
        self._frame, self._is_delta = self._ahead.popleft()
        frame = self._frame
        codec: Codec | None = self._delta if self._is_delta else self._keyframe
        assert codec is not None
        self._blob = BlobFetch(
            self._topics, frame.delta_slot if self._is_delta else frame.keyframe_slot, federation=self._hash,
            version=frame.version, codec=codec.wire_id, part_bytes=self._manifest.part_bytes,
            size=frame.delta if self._is_delta else frame.keyframe, window=self._window, shelf=self._shelf,
        )  # fmt: skip

    @property
    def payloads(self) -> list[int]:
        """The lengths of the payloads that are still to come; of the one that is under way, what it lacks."""
        if self.params is not None:
            return []
        return [self._blob.lacks, *(frame.delta if delta else frame.keyframe for frame, delta in self._ahead)]

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
        wanted = _payload(self._frame, self._is_delta)
        for index, frame in enumerate(round.frames):
            after = round.frames[index + 1 :]
            if _payload(frame, self._is_delta) == wanted and all(later.delta for later in after):
                self.round, self._ahead = round, deque((later, True) for later in after)
                return True
        return False

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
        proven = self._shelf.model(self._frame.digest) or self._decode()
        if proven is None:
            return self._restart(now)
        self._base = self._shelf.keep(proven)
        if self._frame.digest in self._last:
            self._passed[self._frame.digest] = self._base
        if not self._ahead and proven.sha256 != self.round.model_sha256:
            return self._restart(now)
        self._next_blob()
        return [] if self.params is not None else self.ask(now)

    def _decode(self) -> Proven | None:
        """The params of this frame; None if they don't have its digest."""
        blob = self._blob.blob()
        if blob is None:
            return None
        num_params = self._manifest.model_size
        try:
            if self._is_delta:
                assert self._delta is not None
                params = params_from_bytes(self._base) + self._delta.decode(blob, num_params)
            else:
                params = self._keyframe.decode(blob, num_params)
        except CodecError:
            return None
        decoded = params_to_bytes(params)
        sha256 = sha256_of(decoded)
        return Proven(sha256, decoded) if sha256[:DIGEST] == self._frame.digest else None

    def _restart(self, now: float) -> list[Action]:
        """Fetch from a keyframe. If that has been tried already, wait until patience ends: the broker may be healed."""
        note = Note("warning", f"model {self._frame.version}: SHA-256 is not the round's; it is fetched again")
        tried = not self._held
        self._held, self._passed = {}, {}
        self._start(now)
        return [note] if tried else [note, *self.ask(now)]
