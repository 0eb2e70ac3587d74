"""Downlink: a model version in as few bytes as possible, given the versions that devices hold already.

    keyframe   G_v, lossless
    delta      W_v - G_b through a codec: W are the aggregator's params, G_b what devices have decoded of version b
    G_v = G_b + decode(delta), one float32 sum a coordinate: the same bits on every device and here

A codec that rounds (codecs/grid.py) puts each G_v on a grid, where a keyframe is short and differences are exact. It
writes both. So keyframes may be many.

A strategy's side vectors are stacked behind the params: W and G have (1 + S) P numbers then, and each vector has a step
of its own (codecs/stacked.py). So one digest, one version and one rule for devices that come late are for all of them.

The next delta is measured from G, so what the codec dropped from one delta is in the next one: this is error feedback
at the aggregator. W stays exact; updates are averaged into it, and it is evaluated and saved. Where there are deltas,
the first G is W in bfloat16, except for what SGD does not move: that makes its keyframe a third as long, and the deltas
restore what rounding took.

A payload has the params that move (Manifest.moving): what no training changes is the same in all versions, and devices
have it from the base, a payload of its own. W, G and their digests are of the whole model.

Versions that `span` divides are *anchors*, and so is the first version; a delta starts at the last anchor before it.
With a span of 1 all versions form one chain, which suits fleets that take part in every round. A device that is drawn
now and then needs one delta for each span that it missed, and one more. The keyframe is renewed when the deltas since
it are as long as a whole model. Deltas that no device would use any more are dropped.

Each payload, keyframe or delta, has a *slot*, whose topics hold its parts (retained_model.py). A frame names the slots
of its payloads. A slot is reused only after a round that does not name it has been announced. Aggregators with odd and
with even `attempt` use different slots, so one that starts does not overwrite what the last round before it names. Part
of RoundCoordinator; no I/O.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from ...core.columns import Scaling
from ...core.params import DIGEST, params_sha256, to_bfloat16
from ...core.plan import Plan
from ...errors import CodecError
from ...protocol.manifest import Manifest
from ...protocol.round import MAX_FRAMES, Frame

SLOTS_OF_ONE = MAX_FRAMES + 4  # the frames of a round, its keyframe, and what the next version adds
SLOTS = 2 * SLOTS_OF_ONE
# The whole models' bytes that the newest keyframe and what follows it may have. On a grid a keyframe is short, and each
# device that comes for the first time needs one.
SELDOM, OFTEN = 2.0, 1.25


@dataclass(frozen=True, eq=False)
class Payload:
    """A keyframe or a delta as it lies on the broker; `codec` is the wire id of the codec that decodes it."""

    slot: int
    version: int
    codec: int
    blob: bytes


@dataclass(frozen=True, eq=False)
class Step:
    """A frame and its payloads; b"" where it has none."""

    frame: Frame
    keyframe: bytes = b""
    delta: bytes = b""


@dataclass(frozen=True, eq=False)
class _Version:
    """Params (P,) float32 of a version: `exact` as the aggregator has them, `shown` as devices decode them."""

    exact: np.ndarray
    shown: np.ndarray


class Downlink:
    """`steps` lead from the oldest version that is kept to the newest; `shown` is what devices train from."""

    def __init__(self, manifest: Manifest, params: np.ndarray, version: int, attempt: int = 1) -> None:
        self._keyframe, self._delta = manifest.model_codecs
        self._attempt = attempt
        self._taken: set[int] = set()  # slots that must not be reused for the next payload
        self._span, self._scaling, self._moving = manifest.span, Scaling.of(manifest.plan), manifest.moving
        self._rounds = self._delta is not None and self._delta.rounds
        if self._delta is None or self._rounds:
            self._restart(params, version)
        else:
            self._restart(params, version, _coarse(params, manifest.plan))
            self._whole = len(self._keyframe.encode(self._moving.shared(params)))  # later ones are

    def _restart(self, params: np.ndarray, version: int, shown: np.ndarray | None = None) -> None:
        """Begin with a keyframe of `shown`, the params as devices decode them."""
        self.shown = self._rounded(params) if shown is None else shown
        shown = self.shown
        self.sha256 = params_sha256(shown)
        keyframe = self._keyframe.encode(self._moving.shared(shown))
        self._whole = len(keyframe)  # the bytes of a keyframe of exact params
        frame = Frame(version, self.sha256[:DIGEST], len(keyframe), 0, keyframe_slot=self._slot())
        self.steps = [Step(frame, keyframe)]
        self._anchor = _Version(params, self.shown)
        self._on_anchor = True

    def _rounded(self, params: np.ndarray) -> np.ndarray:
        """What devices shall decode of a keyframe of these params."""
        moving = self._moving
        return moving.with_shared(params, self._keyframe.rounded(moving.shared(params))) if self._rounds else params

    @property
    def frames(self) -> list[Frame]:
        return [step.frame for step in self.steps]

    @property
    def payloads(self) -> list[Payload]:
        """All payloads of the steps, in the order in which a device needs them."""
        found = []
        for step in self.steps:
            frame = step.frame
            if step.keyframe:
                found.append(Payload(frame.keyframe_slot, frame.version, self._keyframe.wire_id, step.keyframe))
            if step.delta and self._delta is not None:
                found.append(Payload(frame.delta_slot, frame.version, self._delta.wire_id, step.delta))
        return found

    def move(self, attempt: int) -> None:
        """Use the slots of this attempt: another aggregator may have announced rounds in between."""
        if attempt == self._attempt:
            return
        self._attempt, self._taken = attempt, set()
        self.steps = [self._moved(step) for step in self.steps]

    def _moved(self, step: Step) -> Step:
        keyframe_slot = self._slot() if step.keyframe else 0
        delta_slot = self._slot() if step.delta else 0
        frame = replace(step.frame, keyframe_slot=keyframe_slot, delta_slot=delta_slot)
        return Step(frame, step.keyframe, step.delta)

    def _slot(self) -> int:
        """The lowest slot that is free."""
        first = (self._attempt + 1) % 2 * SLOTS_OF_ONE
        slot = next(slot for slot in range(first, first + SLOTS_OF_ONE) if slot not in self._taken)
        self._taken.add(slot)
        return slot

    @property
    def longest(self) -> int:
        """The most bytes of any payload."""
        num_params = len(self._moving.shared(self.shown))
        return max(c.bound(num_params) for c in (self._keyframe, self._delta) if c is not None)

    def ahead(self, params: np.ndarray, version: int) -> Downlink:
        """Another one, with the next version added; this one stays as it is."""
        other = copy.copy(self)  # nothing is changed in place
        other.advance(params, version)
        return other

    def advance(self, params: np.ndarray, version: int) -> None:
        """Add the next version. The round that names the steps so far has been announced."""
        self._taken = {payload.slot for payload in self.payloads}
        delta, shown = (b"", None) if self._is_rescaled(params) else self._encode(params)
        if delta and shown is not None:
            self.shown = shown
            self._append(delta, params, version)
        else:
            self._restart(params, version, shown)

    def _is_rescaled(self, params: np.ndarray) -> bool:
        """Whether the scaling has changed since the anchor: beside that, a delta would lose what training did, or
        lose digits of the scaling."""
        anchor, scaling = self._anchor.exact, self._scaling
        return scaling is not None and scaling.keep(params, anchor) is not params

    def _encode(self, params: np.ndarray) -> tuple[bytes, np.ndarray | None]:
        """The delta from the anchor, b"" where a keyframe serves better; and the params that devices shall have then,
        None if this delta does not lead to any that are of use.

        A codec that rounds leads to the same params either way. Rounded anew, they would have the fine steps of a first
        model again, and a keyframe twice as long."""
        codec, anchor, moving = self._delta, self._anchor, self._moving
        if codec is None:
            return b"", None
        before, moved = moving.shared(anchor.shown), moving.shared(params)
        try:
            payload = codec.encode_model(moved, moved - moving.shared(anchor.exact), before)
        except CodecError:
            return b"", None
        after = before + codec.decode(payload, len(moved))
        if not np.isfinite(after).all():
            return b"", None
        shown = moving.with_shared(anchor.shown, after)
        if self._rounds and len(payload) > self._whole / 4:
            self._whole = len(self._keyframe.encode(after))  # steps may be others than the last keyframe's
        if len(payload) < self._whole:
            return payload, shown
        return b"", shown if self._rounds else None

    def _append(self, delta: bytes, params: np.ndarray, version: int) -> None:
        self.sha256 = params_sha256(self.shown)
        kept = self.steps if self._on_anchor else self.steps[:-1]
        frame = Frame(version, self.sha256[:DIGEST], 0, len(delta), delta_slot=self._slot())
        self.steps = [*kept, Step(frame, b"", delta)]
        self._on_anchor = version % self._span == 0
        if self._on_anchor:
            self._anchor = _Version(params, self.shown)
            self._renew_keyframe()
        self._trim()

    def _renew_keyframe(self) -> None:
        newest = max(index for index, step in enumerate(self.steps) if step.keyframe)
        since = sum(len(step.delta) for step in self.steps[newest + 1 :])
        most = OFTEN if self._rounds else SELDOM
        short = len(self.steps[newest].keyframe) + since < most * self._whole
        if short and len(self.steps) - newest <= MAX_FRAMES // 2:
            return
        last = self.steps[-1]
        keyframe = self._keyframe.encode(self._moving.shared(self.shown))
        self._whole = len(keyframe)
        older = [_without(step, keyframe=True) for step in self.steps[:-1]]
        frame = replace(last.frame, keyframe=len(keyframe), keyframe_slot=self._slot())
        self.steps = [*older, Step(frame, keyframe, last.delta)]

    def _trim(self) -> None:
        """Drop old versions from which the keyframe is the shorter way, and what the round's message can't hold."""
        lengths = [len(step.delta) for step in self.steps]
        by_keyframe = min(len(s.keyframe) + sum(lengths[i + 1 :]) for i, s in enumerate(self.steps) if s.keyframe)
        first = 0
        while not self.steps[first].keyframe and (
            sum(lengths[first + 1 :]) >= by_keyframe or len(self.steps) - first > MAX_FRAMES
        ):
            first += 1
        self.steps = [_without(self.steps[first], delta=True), *self.steps[first + 1 :]]


def _without(step: Step, *, keyframe: bool = False, delta: bool = False) -> Step:
    """The step without its keyframe, its delta, or both."""
    frame = step.frame
    if keyframe:
        frame = replace(frame, keyframe=0, keyframe_slot=0)
    if delta:
        frame = replace(frame, delta=0, delta_slot=0)
    return Step(frame, b"" if keyframe else step.keyframe, b"" if delta else step.delta)


def _coarse(params: np.ndarray, plan: Plan) -> np.ndarray:
    """`params`, and what is stacked behind them, in bfloat16, except for state and frozen layers, whose values no delta
    would restore."""
    size, moved = plan.num_params, plan.num_trainable
    return np.concatenate((to_bfloat16(params[:moved]), params[moved:size], to_bfloat16(params[size:])))
