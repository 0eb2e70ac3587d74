"""Codecs: how a delta becomes bytes. One codec a file; to add one, write the file and add its line here."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from ..registry import build
from .base import Codec

CODECS = {
    "raw32": "edgefl.codecs.raw32:Raw32",
    "planes": "edgefl.codecs.planes:Planes",
    "ecq": "edgefl.codecs.ecq:Ecq",
    "ecq-sparse": "edgefl.codecs.ecq_sparse:EcqSparse",
}
# Codecs that were removed, with their wire ids. No other codec ever gets one of these ids.
RETIRED = {"f16": 2, "ecq-dither": 5, "ecq-tcq": 7, "qsgd": 8, "topk": 9, "sign": 10}

__all__ = ["CODECS", "RETIRED", "Codec", "get"]


def get(name: str, /, **options: Any) -> Codec:
    """The codec called `name`, with its options; UsageError names the nearest for a misspelt one."""
    if name in RETIRED:
        raise UsageError(f"codec {name!r} was removed: use ecq, which needs fewer bytes for the same accuracy")
    return build(CODECS, name, "codec", options)
