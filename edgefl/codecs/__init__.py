"""Codecs: how a delta becomes bytes. One codec a file; to add one, write the file and add its line here."""

from __future__ import annotations

from typing import Any

from ..errors import ProtocolError
from ..registry import build, resolve
from .base import Codec

CODECS = {
    "raw32": "edgefl.codecs.raw32:Raw32",
    "f16": "edgefl.codecs.f16:F16",
    "planes": "edgefl.codecs.planes:Planes",
    "ecq": "edgefl.codecs.ecq:Ecq",
    "ecq-sparse": "edgefl.codecs.ecq_sparse:EcqSparse",
    "ecq-tcq": "edgefl.codecs.ecq_tcq:EcqTcq",
    "ecq-dither": "edgefl.codecs.ecq_dither:EcqDither",
    "qsgd": "edgefl.codecs.qsgd:Qsgd",
    "topk": "edgefl.codecs.topk:TopK",
    "sign": "edgefl.codecs.sign:Sign",
}

__all__ = ["CODECS", "Codec", "get", "name_of"]


def get(name: str, /, **options: Any) -> Codec:
    """The codec called `name`, with its options; UsageError names the nearest for a misspelt one."""
    return build(CODECS, name, "codec", options)


def name_of(wire_id: int) -> str:
    """The name of the codec that an envelope's codec byte stands for; ProtocolError if none does."""
    for name in CODECS:
        if resolve(CODECS, name, "codec").wire_id == wire_id:
            return name
    raise ProtocolError(f"codec number {wire_id} is unknown here: update edgefl on this side")
