"""RetainedModel: one model version as it lies on the MQTT broker, for devices to pull.

Part of RoundCoordinator; no I/O.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .codecs.raw32 import Raw32
from .protocol.envelope import Kind
from .protocol.machine import Publish
from .protocol.messages import Manifest
from .protocol.parts import Splitter
from .protocol.topics import Topics


class RetainedModel:
    """(P,) float32 `params` as retained parts under `model/{version}/`; `size` and `sha256` are of their bytes."""

    def __init__(
        self, topics: Topics, manifest: Manifest, federation_hash: int, params: np.ndarray, version: int
    ) -> None:
        blob = params.astype("<f4", copy=False).tobytes()
        self.size = len(blob)
        self.sha256 = hashlib.sha256(blob).hexdigest()
        self._splitter = Splitter(
            blob, manifest.part_bytes, kind=Kind.MODEL, codec=Raw32.wire_id,
            federation=federation_hash, round=0, version=version,
        )  # fmt: skip
        self._topics = [topics.model(version, part) for part in range(self._splitter.parts)]

    def publish(self) -> list[object]:
        """Put every part on the broker."""
        return [Publish(topic, self._splitter.part(i), retain=True) for i, topic in enumerate(self._topics)]

    def clear(self) -> list[object]:
        """Take every part off the broker."""
        return [Publish(topic, b"", retain=True) for topic in self._topics]
