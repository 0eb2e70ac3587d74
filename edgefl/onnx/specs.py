"""Specs: which words name a model that EdgeFL writes itself, and the version of ONNX that it writes.

Imports nothing, for commands that start fast.
"""

from __future__ import annotations

OPSET = 17
IR_VERSION = 8  # what onnxruntime has read since 1.10
KINDS = ("mlp", "mcmahan")  # zoo.py and papers.py write them


def is_spec(text: str) -> bool:
    """Whether a model is named as `mlp:SIZES` or `mcmahan:NAME`, and is not a file."""
    kind, colon, _ = text.partition(":")
    return bool(colon) and kind in KINDS
