"""Frozen: the params that no training changes, as this device has them. Part of Participation; no I/O.

They come once (ModelFetch). The host keeps them on its disk (KeepBase), and gives them back at the next start. They are
believed by their SHA-256 alone, which the manifest says: damaged ones are fetched again. While the device holds a
model, that has them, and they take no memory of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.params import params_from_bytes, params_to_bytes, sha256_of
from ...protocol.manifest import Manifest


class Frozen:
    """`kept`: little-endian float32 bytes that the host has found on its disk; b"": none."""

    def __init__(self, kept: bytes = b"") -> None:
        self._kept = kept

    def of(self, manifest: Manifest, held: Mapping[str, bytes]) -> bytes | None:
        """Those of this manifest, which has a base: kept, or taken out of a model that is held; None: they have not
        come yet."""
        assert manifest.base is not None
        if self._kept and sha256_of(self._kept) == manifest.base.sha256:
            return self._kept
        for params in held.values():
            if len(params) == 4 * manifest.plan.num_params:
                numbers = params_to_bytes(manifest.moving.own(params_from_bytes(params)))
                if sha256_of(numbers) == manifest.base.sha256:
                    return numbers
        return None

    def keep(self, numbers: bytes) -> None:
        """They have come."""
        self._kept = numbers

    def release(self) -> None:
        """A model is held that has them."""
        self._kept = b""
