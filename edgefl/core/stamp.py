"""What a model's file says of itself: the same on the aggregator and on a device, in the metadata of the ONNX file."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from . import protobuf


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which model it is. `round`: the newest round when the file was written. `plan` is the plan's hash, and
    `params_sha256` that of the (P,) little-endian float32 params in the file. `accuracy` and `loss` are the version's
    scores, if the writer knows them. In the file of the model that a device keeps for itself `kept` says which one that
    is, "own" or "received", and the scores are those on the device's held-out examples. A field that has its default is
    left out."""

    federation: str
    run: str
    version: int
    round: int
    plan: str
    params_sha256: str
    accuracy: float | None = None
    loss: float | None = None
    kept: str | None = None

    def stamp(self, notes: Mapping[str, str]) -> bytes:
        """What to write behind the ONNX file, with the skeleton's `notes`."""
        known = {name: str(value) for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return protobuf.stamp({**notes, **known})
