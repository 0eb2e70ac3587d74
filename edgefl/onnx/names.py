"""Names: what classes and columns are called, in the metadata of an ONNX file. Every later version has them too."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import onnx
from onnx import helper

from ..core.protobuf import PREFIX


def with_names(source: bytes, *, labels: Sequence[str], columns: Sequence[str]) -> bytes:
    """The ONNX file with these names, as JSON, beside the metadata that it has; as it is if there are none."""
    names = {"labels": labels, "columns": columns}
    told = {PREFIX + key: msgspec.json.encode(words).decode() for key, words in names.items() if words}
    if not told:
        return source
    proto = onnx.ModelProto.FromString(source)
    helper.set_model_props(proto, {entry.key: entry.value for entry in proto.metadata_props} | told)
    written: bytes = proto.SerializeToString()
    return written
