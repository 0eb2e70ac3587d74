"""Downlink: a model version as few bytes more than the versions that devices hold already.

    keyframe   G_v, lossless
    delta      W_v - G_b through a codec: W are the aggregator's params, G_b what devices have decoded of version b
    G_v = G_b + decode(delta), one float32 sum a coordinate: the same bits on every device and here

What the codec takes is not lost: the next delta is measured from G, so it is error feedback at the aggregator. W stays
exact; it is what is averaged into, evaluated and saved. Where there are deltas, the first G has W in bfloat16, but for
what SGD does not move: its keyframe is a third as long, and the deltas make good what that took.

Versions that `span` divides are *anchors*, and so is the first; a delta starts at the last anchor before it. With a
span of 1 all versions form one chain, which suits fleets that take part in every round; a device that is drawn now and
then needs one delta for each span that it missed, and one more. The newest keyframe is renewed when the deltas since
are as long as a whole model, and at the first anchor that `span` divides, so that an aggregator after this one knows
where payloads may lie (retained_model.py). Deltas that no device would use any more are taken off the broker. Part of
RoundCoordinator; no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.params import DIGEST, params_sha256, to_bfloat16
from ..core.plan import Plan
from ..errors import CodecError
from ..protocol.messages import MAX_FRAMES, Frame, Manifest


@dataclass(frozen=True, eq=False)
class Step:
    """A frame and its payloads, where it has them."""

    frame: Frame
    keyframe: bytes = b""
    delta: bytes = b""


@dataclass(frozen=True, eq=False)
class _Version:
    """(P,) float32: the aggregator's params of a version, and what devices have of them."""

    exact: np.ndarray
    shown: np.ndarray


class Downlink:
    """`steps` lead from the oldest version that is kept to the newest; `shown` is what devices train from."""

    def __init__(self, manifest: Manifest, params: np.ndarray, version: int) -> None:
        self._keyframe, self._delta = manifest.make_downlink()
        self._span = manifest.span
        if self._delta is None:
            self._restart(params, version, params)
        else:
            self._restart(params, version, _coarse(params, manifest.plan))
            self._whole = len(self._keyframe.encode(params))  # later ones are

    def _restart(self, params: np.ndarray, version: int, shown: np.ndarray) -> None:
        """A keyframe that needs nothing before it: of `params`, or of what is `shown` for them."""
        self.shown = shown
        self.sha256 = params_sha256(shown)
        keyframe = self._keyframe.encode(shown)
        self._whole = len(keyframe)  # the bytes of a keyframe that takes nothing
        self.steps = [Step(Frame(version, self.sha256[:DIGEST], len(keyframe), 0), keyframe)]
        self._anchor = _Version(params, self.shown)
        self._on_anchor = True

    @property
    def frames(self) -> list[Frame]:
        return [step.frame for step in self.steps]

    @property
    def longest(self) -> int:
        """The most bytes of any payload."""
        num_params = len(self.shown)
        return max(c.bound(num_params) for c in (self._keyframe, self._delta) if c is not None)

    def advance(self, params: np.ndarray, version: int) -> tuple[list[Step], list[Step]]:
        """Take the next version in; the payloads that this adds, and those that it makes superfluous."""
        before = self.steps
        delta = self._encode(params)
        if delta is None:
            self._restart(params, version, params)
        else:
            self._append(delta, params, version)
        return _difference(self.steps, before), _difference(before, self.steps)

    def _encode(self, params: np.ndarray) -> bytes | None:
        """The delta from the anchor, and `shown` after it; None where a keyframe serves better."""
        codec, anchor = self._delta, self._anchor
        if codec is None:
            return None
        try:
            target = params - anchor.shown
            payload = codec.encode(target, codec.step_rms(params - anchor.exact, target))
        except CodecError:
            return None
        shown = anchor.shown + codec.decode(payload, len(params))
        if len(payload) >= self._whole or not np.isfinite(shown).all():
            return None
        self.shown = shown
        return payload

    def _append(self, delta: bytes, params: np.ndarray, version: int) -> None:
        self.sha256 = params_sha256(self.shown)
        kept = self.steps if self._on_anchor else self.steps[:-1]
        self.steps = [*kept, Step(Frame(version, self.sha256[:DIGEST], 0, len(delta)), b"", delta)]
        self._on_anchor = version % self._span == 0
        if self._on_anchor:
            self._anchor = _Version(params, self.shown)
            self._renew_keyframe()
        self._trim()

    def _renew_keyframe(self) -> None:
        newest = max(index for index, step in enumerate(self.steps) if step.keyframe)
        since = sum(len(step.delta) for step in self.steps[newest + 1 :])
        astray = self.steps[newest].frame.version % self._span > 0
        short = len(self.steps[newest].keyframe) + since < 2 * self._whole
        if not astray and short and len(self.steps) - newest <= MAX_FRAMES // 2:
            return
        last = self.steps[-1]
        keyframe = self._keyframe.encode(self.shown)
        self._whole = len(keyframe)
        older = [_without(step, keyframe=True) for step in self.steps[:-1]]
        frame = Frame(last.frame.version, last.frame.digest, len(keyframe), last.frame.delta)
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
    """The step, with one of its payloads gone."""
    frame = step.frame
    frame = Frame(frame.version, frame.digest, 0 if keyframe else frame.keyframe, 0 if delta else frame.delta)
    return Step(frame, b"" if keyframe else step.keyframe, b"" if delta else step.delta)


def _difference(steps: list[Step], others: list[Step]) -> list[Step]:
    """The payloads of `steps` that are not among the `others`'."""
    keyframes = {step.frame.version for step in others if step.keyframe}
    deltas = {step.frame.version for step in others if step.delta}
    left = [_without(s, keyframe=s.frame.version in keyframes, delta=s.frame.version in deltas) for s in steps]
    return [step for step in left if step.keyframe or step.delta]


def _coarse(params: np.ndarray, plan: Plan) -> np.ndarray:
    """(P,) `params` in bfloat16, but for state and frozen layers: no delta has to be spent on these."""
    moved = plan.num_trainable
    return np.concatenate((to_bfloat16(params[:moved]), params[moved:]))
