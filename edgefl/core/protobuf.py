"""Protobuf's wire format, as far as a device needs it for an ONNX file: its fields, and its metadata.

A device has no `onnx` package. The metadata of an ONNX file is its field 14, a repeated pair of key and value, and a
repeated field may stand anywhere: a pair is added by writing it behind the file. Ours begin with `PREFIX`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import ModelError

PREFIX = "edgefl."
METADATA = 14  # of a ModelProto: metadata_props
KEY, VALUE = 1, 2  # of such an entry
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


class Field(NamedTuple):
    """One field of a message: it begins at `first`, and its value is `data[begin:end]`."""

    number: int
    kind: int
    first: int
    begin: int
    end: int


def fields(data: bytes | memoryview, begin: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message in `data[begin:end]`, in their order; ModelError if they are not one."""
    at, end = begin, len(data) if end is None else end
    while at < end:
        first = at
        tag, at = _varint(data, at, end)
        kind, start = tag & 7, at
        if kind == VARINT:
            _, at = _varint(data, at, end)
        elif kind == BYTES:
            size, start = _varint(data, at, end)
            at = start + size
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            raise ModelError(f"not an ONNX file: its byte {first} begins no field")
        if at > end:
            raise ModelError(f"not an ONNX file: the field at byte {first} is longer than the file")
        yield Field(tag >> 3, kind, first, start, at)


def _varint(data: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= end:
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ModelError(f"not an ONNX file: the number at byte {at} has no end")


def metadata_of(data: bytes | memoryview) -> dict[str, str]:
    """What `stamp` has written into an ONNX file, without `PREFIX`."""
    entries = [_entry(data, field) for field in fields(data) if field.number == METADATA and field.kind == BYTES]
    return {key.removeprefix(PREFIX): value for key, value in entries if key.startswith(PREFIX)}


def without_stamp(data: bytes) -> bytes:
    """The ONNX file without what `stamp` has written into it; every other byte stays as it is."""
    kept, at = [], 0
    for field in fields(data):
        if field.number == METADATA and field.kind == BYTES and _entry(data, field)[0].startswith(PREFIX):
            kept.append(data[at : field.first])
            at = field.end
    return b"".join([*kept, data[at:]]) if kept else data


def stamp(entries: Mapping[str, str]) -> bytes:
    """What to write behind an ONNX file, so that its metadata has these entries, with `PREFIX` before each key."""
    out = []
    for key, value in entries.items():
        pair = _string(KEY, PREFIX + key) + _string(VALUE, value)
        out.append(_tag(METADATA) + _number(len(pair)) + pair)
    return b"".join(out)


def _entry(data: bytes | memoryview, field: Field) -> tuple[str, str]:
    found = {KEY: "", VALUE: ""}
    for inner in fields(data, field.begin, field.end):
        if inner.number in found and inner.kind == BYTES:
            found[inner.number] = bytes(data[inner.begin : inner.end]).decode(errors="replace")
    return found[KEY], found[VALUE]


def _string(number: int, text: str) -> bytes:
    blob = text.encode()
    return _tag(number) + _number(len(blob)) + blob


def _tag(number: int) -> bytes:
    return _number(number << 3 | BYTES)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
