"""The skeleton of a model's file (core/skeleton.py), made on the aggregator's side and proven.

Design:
  a) `Model.to_bytes` writes a file in which every param has changed. Tensors that are several params by then have
     initializers of their own in it (export.py, d), and it is the template: only numbers differ from one such file to
     another.
  b) What `to_bytes` does with positions of the file vector is done with numbers of params instead.
  c) The proof: with the params that were loaded, and with others, the skeleton gives the bytes that `to_bytes` gives.
     Where the loaded file is not as `onnx` writes files, or tensors are split, the loaded params give another file of
     the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx

from ..core.protobuf import BYTES, FIXED32, Field, fields, without_stamp
from ..core.skeleton import FLOAT, Header, Hole, Skeleton
from ..errors import ModelError
from .blocks import blocks_of
from .export import forms_of, input_groups

if TYPE_CHECKING:
    from .model import Model

# Numbers of fields in onnx.proto.
GRAPH = 7  # of a model
NODE, INITIALIZER = 1, 5  # of a graph
ATTRIBUTE = 5  # of a node
NAME, SINGLE, LIST, TENSOR = 1, 2, 7, 5  # of an attribute: name, f, floats, t
FLOAT_DATA, RAW_DATA = 4, 9  # of a tensor

Home = tuple[int, str | None]  # an Origin's index and attribute


class Room(NamedTuple):
    """Where a file stores numbers: `size` of them, `step` bytes apart, the first at byte `at`."""

    at: int
    step: int
    size: int


def make(model: Model) -> Skeleton:
    """ModelError if it can't be proven, or is too long."""
    rng = np.random.default_rng(0)
    template = _written(model, _others(model.params, rng))
    made = _Holes(model, template).skeleton()
    for params in (_others(model.params, rng), _half(model.params, rng)):
        if b"".join(made.pieces(params)) != _written(model, params):
            raise ModelError("its file can't be put together from a skeleton: its numbers are not where they seem")
    _check_loaded(model, made)
    made.to_bytes()
    return made


def _written(model: Model, params: np.ndarray) -> bytes:
    return without_stamp(model.to_bytes(params, merge=False))


def _others(params: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P,) params that all differ from `params`."""
    found = rng.normal(size=params.shape).astype(np.float32)
    return np.where(found == params, found + np.float32(1), found)


def _half(params: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P,) params of which about a half are as they were loaded; those that others share a tensor with differ."""
    return np.where(rng.random(params.shape) < 0.5, params, _others(params, rng))


def _check_loaded(model: Model, made: Skeleton) -> None:
    """With the loaded params the file has the loaded numbers."""
    found = b"".join(made.pieces(model.params))
    source = without_stamp(model.source)
    if found == source or found == onnx.ModelProto.FromString(source).SerializeToString():
        return
    again = made.params_of(found)
    if again is None or not _same_numbers(model, found):
        raise ModelError("its file can't be put together from a skeleton: the loaded numbers are not the file's")


def _same_numbers(model: Model, found: bytes) -> bool:
    """Whether each tensor of the file that was loaded has the same numbers in `found`."""
    rooms = dict(_rooms(found))
    return all(
        np.array_equal(_numbers(found, rooms[origin.index, origin.attribute]), origin.values)
        for origin in model.origins
        if origin.values.size
    )


def _numbers(file: bytes, room: Room) -> np.ndarray:
    found = np.ndarray((room.size, FLOAT), np.uint8, file, room.at, (room.step, 1))
    return np.ascontiguousarray(found).view("<f4")[:, 0]


class _Holes:
    """Finds the holes of `template`. `source` has for each position of the file vector the param that is written there,
    -1: none; `scale` what it is divided by."""

    def __init__(self, model: Model, template: bytes) -> None:
        self._model, self._template = model, template
        self._rooms = dict(_rooms(template))
        size = sum(origin.values.size for origin in model.origins)
        self._source, self._scale = np.full(size, -1, np.int64), np.ones(size)
        self._split: list[np.ndarray] = []  # for each initializer that the template adds, the params in it
        self._old: dict[int, np.ndarray] = {}  # the loaded numbers of a hole, by where it begins
        self._fill()

    def _fill(self) -> None:
        """As export.write_params does when every param has changed."""
        bindings = self._model.bindings
        starts = np.cumsum([0, *(binding.size for binding in bindings)])
        for members in input_groups(bindings):
            own = [np.arange(starts[at], starts[at + 1]) for at in members]
            places = [(place, params) for at, params in zip(members, own, strict=True) for place in bindings[at].places]
            clash = any(self._differs(place.where, place.scale, params) for place, params in places)
            if clash or bindings[members[0]].apart:
                for form in forms_of(bindings, members):
                    tensor = np.empty(sum(len(params) for params in own), np.int64)
                    for read, params in zip(form[0], own, strict=True):
                        tensor[read.layout] = params
                    self._split.append(tensor)
                continue
            for place, params in places:
                self._source[place.where], self._scale[place.where] = params, place.scale
        for copy in self._model.copied:
            self._source[copy.place], self._scale[copy.place] = self._source[copy.where], self._scale[copy.where]

    def _differs(self, where: np.ndarray, scale: float, params: np.ndarray) -> bool:
        taken = self._source[where] >= 0
        return bool((taken & ((self._source[where] != params) | (self._scale[where] != scale))).any())

    def skeleton(self) -> Skeleton:
        holes = sorted([*self._of_origins(), *self._of_splits()], key=lambda hole: hole.at)
        kept, at = bytearray(), 0
        blank = bytearray(self._template)
        for hole in holes:
            if hole.is_cut:
                kept += blank[at : hole.at]
                at = hole.end
            else:
                self._clear(blank, hole)
        kept += blank[at:]
        return Skeleton(Header(len(self._template), len(self._model.params), holes), bytes(kept))

    def _clear(self, blank: bytearray, hole: Hole) -> None:
        """No trained number is published; but the loaded one where it is needed."""
        room = np.ndarray((hole.count, FLOAT), np.uint8, blank, hole.at, (hole.step, 1))
        room[:] = 0 if hole.scale == 1.0 else self._old[hole.at].astype("<f4").view(np.uint8).reshape(-1, FLOAT)

    def _of_origins(self) -> Iterator[Hole]:
        for origin in self._model.origins:
            span = slice(origin.offset, origin.offset + origin.values.size)
            source, scale = self._source[span], self._scale[span]
            if (source < 0).all():
                continue
            room = self._rooms[origin.index, origin.attribute]
            if room.size != origin.values.size:
                raise ModelError("its file stores a tensor in a way that a skeleton does not know")
            for hole in _holes(room, source, scale):
                begin = (hole.at - room.at) // room.step
                self._old[hole.at] = origin.values[begin : begin + hole.count]
                yield hole

    def _of_splits(self) -> Iterator[Hole]:
        first = max((index for index, attribute in self._rooms if attribute is None), default=-1) + 1
        first -= len(self._split)
        for number, tensor in enumerate(self._split):
            yield from _holes(self._rooms[first + number, None], tensor, np.ones(len(tensor)))


def _holes(room: Room, source: np.ndarray, scale: np.ndarray) -> Iterator[Hole]:
    """A hole for each stretch of numbers that are params of one scale."""
    kind = np.where(source >= 0, scale, np.nan)
    differs = (kind[1:] != kind[:-1]) & ~(np.isnan(kind[1:]) & np.isnan(kind[:-1]))
    edges = [0, *(np.flatnonzero(differs) + 1).tolist(), len(source)]
    for begin, end in pairwise(edges):
        if source[begin] >= 0:
            yield Hole(room.at + room.step * begin, blocks_of(source[begin:end]), room.step, float(scale[begin]))


def _rooms(file: bytes) -> Iterator[tuple[Home, Room]]:
    """Where the file stores float32 numbers."""
    nodes = initializers = 0
    for graph in _inner(file, None, GRAPH):
        for field in fields(file, graph.begin, graph.end):
            if field.number == INITIALIZER:
                for room in _of_tensor(file, field):
                    yield (initializers, None), room
                initializers += 1
            elif field.number == NODE:
                for attribute in _inner(file, field, ATTRIBUTE):
                    yield from _of_attribute(file, attribute, nodes)
                nodes += 1


def _inner(file: bytes, outer: Field | None, number: int) -> list[Field]:
    begin, end = (0, len(file)) if outer is None else (outer.begin, outer.end)
    return [field for field in fields(file, begin, end) if field.number == number]


def _of_attribute(file: bytes, attribute: Field, node: int) -> Iterator[tuple[Home, Room]]:
    inner = list(fields(file, attribute.begin, attribute.end))
    name = next((file[f.begin : f.end].decode(errors="replace") for f in inner if f.number == NAME), "")
    singles = [f for f in inner if f.number == SINGLE and f.kind == FIXED32]
    listed = [f for f in inner if f.number == LIST]
    tensor = [room for f in inner if f.number == TENSOR for room in _of_tensor(file, f)]
    for room in [*tensor, *_of_list(listed), *(Room(f.begin, FLOAT, 1) for f in singles)]:
        yield (node, name), room


def _of_list(listed: list[Field]) -> Iterator[Room]:
    """A list of numbers: packed, or each with a tag of its own."""
    if len(listed) == 1 and listed[0].kind == BYTES:
        yield Room(listed[0].begin, FLOAT, (listed[0].end - listed[0].begin) // FLOAT)
    elif listed and all(field.kind == FIXED32 for field in listed):
        step = listed[1].begin - listed[0].begin if len(listed) > 1 else FLOAT
        if all(field.begin == listed[0].begin + step * at for at, field in enumerate(listed)):
            yield Room(listed[0].begin, step, len(listed))


def _of_tensor(file: bytes, tensor: Field) -> Iterator[Room]:
    inner = [f for f in fields(file, tensor.begin, tensor.end) if f.number in (FLOAT_DATA, RAW_DATA)]
    raw = [f for f in inner if f.number == RAW_DATA]
    yield from _of_list([f for f in inner if f.number == FLOAT_DATA])
    if raw:
        yield Room(raw[-1].begin, FLOAT, (raw[-1].end - raw[-1].begin) // FLOAT)
