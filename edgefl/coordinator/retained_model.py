"""RetainedModel: model versions as they lie on the MQTT broker. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from collections.abc import Iterator

from ..machine import Publish
from ..protocol.envelope import Kind
from ..protocol.messages import MAX_FRAMES, Manifest
from ..protocol.parts import Splitter
from ..protocol.topics import Topics
from .downlink import Step
from .events import Action


class RetainedModel:
    """The retained parts of steps of the downlink."""

    def __init__(self, topics: Topics, manifest: Manifest, federation_hash: int) -> None:
        self._topics = topics
        self._part_bytes, self._span = manifest.part_bytes, manifest.span
        self._federation = federation_hash
        self._keyframe, self._delta = manifest.make_downlink()

    def publish(self, steps: list[Step]) -> list[Action]:
        """Put every part on the broker."""
        return [Publish(topic, splitter.part(i), retain=True) for topic, splitter, i in self._parts(steps)]

    def clear(self, steps: list[Step]) -> list[Publish]:
        """Take every part off the broker."""
        return [Publish(topic, b"", retain=True) for topic, _, _ in self._parts(steps)]

    def clear_before(self, version: int, longest: int) -> list[Publish]:
        """Take off the broker what may lie there of versions before this one, and of deltas that lead to it: payloads
        of `longest` bytes at most.

        Frames lead back over MAX_FRAMES anchors (downlink.py). Between anchors lie only deltas of the newest versions,
        and the keyframe of an aggregator's start, until its next anchor.
        """
        oldest = max(0, version - MAX_FRAMES * self._span)
        anchors = set(range(-(-oldest // self._span) * self._span, version, self._span))
        forms = [(self._topics.model, anchors.union(range(max(0, version - MAX_FRAMES - self._span + 1), version)))]
        if self._delta is not None:
            forms.append((self._topics.delta, anchors.union(range(max(0, version - MAX_FRAMES), version + 1))))
        parts = range(-(-longest // self._part_bytes))
        topics = [topic(v, part) for topic, versions in forms for v in sorted(versions) for part in parts]
        return [Publish(topic, b"", retain=True) for topic in topics]

    def _parts(self, steps: list[Step]) -> Iterator[tuple[str, Splitter, int]]:
        for step in steps:
            version = step.frame.version
            for blob, topic, codec in (
                (step.keyframe, self._topics.model, self._keyframe), (step.delta, self._topics.delta, self._delta)
            ):  # fmt: skip
                if not blob or codec is None:
                    continue
                splitter = Splitter(
                    blob, self._part_bytes, kind=Kind.MODEL, codec=codec.wire_id,
                    federation=self._federation, round=0, version=version,
                )  # fmt: skip
                for part in range(splitter.parts):
                    yield topic(version, part), splitter, part
