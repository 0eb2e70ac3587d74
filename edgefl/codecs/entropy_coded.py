"""Base of ecq and ecq-sparse: one step for the whole update, symbols, rANS, and a format in which all is checked.

    CRC-32C u32 of the rest | form u8 | step f32 | the quantizer's own numbers | kept coordinates
    | groups and energies (energy.py), if form & ENERGIES | K u8, K frequency tables (tables.py)
    | E u32, if form & ESCAPES | rANS stream | E float32 values of escapes

Everything is little-endian. A `form` of RAW is followed by P float32 and nothing else. Otherwise its two lowest bits
are the index of the stream's lanes in LANES, and WIDE says that kept coordinates are float32 instead of float16. An
escape is a coordinate too large for a symbol; it is written as it is.

LIVE, which goes with ENERGIES, says that rows and columns of class 0 have no symbol but 0, and that the stream leaves
them out (places.py). In a real update two thirds of the coordinates lie in such rows and columns, and a decoder is done
in half the time. Decoders up to 0.1 do not know it: it is written where `forms` has "live", which both sides know from
the manifest.

Every length follows from P and the plan's tensors. Decoding is integer work and one float32 product a coordinate, so
all machines decode the same bits.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..core.plan import Param
from ..errors import CodecError, UsageError
from . import places
from .base import Codec
from .energy import CONTEXTS, Energies, read_groups
from .payload import Coded, Payload, Raw
from .quantized import Quantized
from .reader import Reader
from .sections import Sections, check_exact, finite, kept_to_bytes, read_kept
from .step_search import MAX_STEP, MIN_STEP, clip_step, search
from .tables import ESCAPE, read_tables

LANES = (1, 8, 32, 16)  # 16 with LIVE only
RAW, LIVE, ESCAPES, WIDE, ENERGIES = 0x80, 0x08, 0x10, 0x20, 0x40
# The step follows from the fresh update. Where updates shrink, the residual is much larger than the fresh update, and
# such a step would write out all of the residual's digits at once. So
#     step >= min(FINEST step_option, COARSEST) rms(fresh + residual)
# and the residual goes out over a few rounds. The rms of a residual is up to 0.6 step. A COARSEST above 1 / 0.6 would
# let the residual raise the step that raises the residual, until nothing is sent any more.
EACH = np.arange(CONTEXTS, dtype=np.uint8)  # a table for each context
FINEST, COARSEST = 0.3, 1.5
_HEAD = struct.Struct("<IBf")
_RAW_HEAD = struct.Struct("<IB")
_CRC = struct.Struct("<I")
_COUNT = struct.Struct("<I")


class EntropyCoded(Codec):
    """Options: `step` (the quantizer's, in rms of the fresh update), or `bits` a coded coordinate, not counting what is
    kept; `exact` (which tensors are kept, see sections.py); `max_bytes` of the whole payload."""

    default_step = 5.0
    most_tables = 1  # without energies
    _known: tuple[Sequence[Param], Sections] | None = None
    OWN: struct.Struct  # the quantizer's own numbers

    def __init__(
        self, step: float | None = None, bits: float | None = None, exact: str = "vectors", max_bytes: int | None = None
    ) -> None:
        super().__init__(max_bytes)
        for option, value, most in (("step", step, 1e6), ("bits", bits, 32)):
            if value is not None and not (isinstance(value, int | float) and 0 < value <= most):
                raise UsageError(f"{self.name}: {option} is {value!r}: give a number above 0, at most {most:g}")
        if step is not None and bits is not None:
            raise UsageError(f"{self.name}: step and bits say the same thing twice: give one")
        self.step, self.bits, self.exact = step or self.default_step, bits, check_exact(exact)

    def _sections(self, num_params: int) -> Sections:
        """What is quantized of so many params; found once for one model."""
        if self._known is None or self._known[0] is not self.tensors or self._known[1].num_params != num_params:
            self._known = self.tensors, Sections(self.tensors, self.exact, num_params)
        return self._known[1]

    # The quantizer

    @abstractmethod
    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        """The symbols of `x` at this step, without energies."""

    @abstractmethod
    def _levels(self, step: np.float32, own: tuple[int, ...]) -> np.ndarray:
        """(256,) float32: the value of each symbol."""

    def _energy_symbols(self, q: Quantized, x: np.ndarray) -> np.ndarray:
        """(n,) uint8: the symbols whose magnitudes are the energies of `x`."""
        return q.symbols

    def _contexts(self, own: tuple[int, ...], tables: int, start: int, n: int) -> np.ndarray | None:
        """(n,) uint8, below `tables`: the contexts of coordinates `start` on, without energies; None: all 0."""
        return None

    # Encoding

    def bound(self, num_params: int) -> int:
        return _RAW_HEAD.size + 4 * num_params

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        sections = self._sections(len(delta))
        if any(delta[run].any() for run in sections.still):
            return self._raw(delta)
        x = sections.gather(delta, sections.coded)
        kept, wide = kept_to_bytes(sections.gather(delta, sections.kept), sections.measured)
        budget = self._budget(sections.num_coded, len(kept))

        def quantized(step: np.float32) -> Quantized:
            q = self._quantize(x, step)
            return self._add_energies(q, x, sections) if sections.matrices else q

        if budget is None:
            payload = self._write(quantized(self._default_step(x, rms)), x, kept, wide)
        else:
            payload = search(
                float(np.abs(x).max(initial=0)), budget, lambda step: self._size(quantized(step), kept),
                lambda step: self._write(quantized(step), x, kept, wide),
            )  # fmt: skip
        if len(payload) > self.bound(len(delta)):
            return self._raw(delta)
        self._check_budget(len(payload))
        if budget is not None and len(payload) > budget and x.any():
            raise CodecError(f"{self.name} needs {len(payload)} bytes, bits={self.bits} allow {budget}: raise bits")
        return payload

    def _raw(self, delta: np.ndarray) -> bytes:
        payload = _seal(bytes([RAW]) + delta.astype("<f4", copy=False).tobytes())
        self._check_budget(len(payload))
        return payload

    def _add_energies(self, q: Quantized, x: np.ndarray, sections: Sections) -> Quantized:
        """`q` with the energies of `x`, the coordinates of all matrices, where that is shorter."""
        energies = Energies.of(self._energy_symbols(q, x), sections.matrices)
        if "live" in self.forms:
            found = places.live(sections, energies, EACH)
            symbols, contexts = found.gather(q.symbols), found.contexts(0, found.count)
            return q.with_energies(energies, symbols, contexts, live=True)
        contexts = self._with_energies(energies, q.own, 0, len(x), None)
        return q.with_energies(energies, q.symbols, contexts)

    def _with_energies(
        self, energies: Energies, own: tuple[int, ...], start: int, n: int, groups: np.ndarray | None
    ) -> np.ndarray:
        contexts = self._contexts(own, self.most_tables, start, n)
        return energies.contexts(np.zeros(n, np.uint8) if contexts is None else contexts, start, groups)

    def rms(self, delta: np.ndarray) -> float:
        sections = self._sections(len(delta))
        return _core.rms(sections.gather(delta, sections.coded))

    def step_rms(self, fresh: np.ndarray, target: np.ndarray) -> float:
        return max(self.rms(fresh), min(FINEST, COARSEST / self.step) * self.rms(target))

    def _budget(self, num_coded: int, kept_bytes: int) -> int | None:
        """The most bytes of the payload, if `bits` or `max_bytes` choose the step; else None."""
        if self.bits is None:
            return self.max_bytes
        wanted = int(self.bits * num_coded / 8) + kept_bytes
        return wanted if self.max_bytes is None else min(wanted, self.max_bytes)

    def _default_step(self, x: np.ndarray, rms: float | None) -> np.float32:
        scale = _core.rms(x) if rms is None or not rms > 0 else rms
        return clip_step(self.step * scale)

    def _size(self, q: Quantized, kept: bytes) -> float:
        """About the bytes of `_write`; the coder takes a little more than its tables' entropy."""
        tables, _, bits = q.tables
        lanes = self._lanes(q.live, bits)
        stream = max(4 * lanes, 3 * lanes + 1.0003 * bits / 8)  # a lane ends with 4 bytes, one of which carries symbols
        fixed = _HEAD.size + self.OWN.size + len(kept) + len(q.side) + len(tables)
        return fixed + stream + (_COUNT.size + 4 * q.escapes if q.escapes else 0)

    def _lanes(self, live: bool, bits: float) -> int:
        """How many lanes code so many bits: a lane costs three bytes; more of them are faster."""
        if live:
            return 32 if bits >= 8 * 8192 else 16 if bits >= 8 * 2048 else 8 if bits >= 8 * 1024 else 1
        return 32 if bits >= 8 * 4096 else 8 if bits >= 8 * 1024 else 1

    def _write(self, q: Quantized, x: np.ndarray, kept: bytes, wide: bool) -> bytes:
        tables, frequencies, bits = q.tables
        lanes = self._lanes(q.live, bits)
        form = LANES.index(lanes) | (WIDE if wide else 0) | (ENERGIES if q.side else 0) | (LIVE if q.live else 0)
        escapes = b""
        if q.escapes:
            form |= ESCAPES
            escapes = x[q.escaped].astype("<f4", copy=False).tobytes()
            tables += _COUNT.pack(q.escapes)
        stream = _core.rans_encode(q.symbols, q.contexts, frequencies, lanes)
        head = _HEAD.pack(0, form, q.step)[_CRC.size :]
        return _seal(b"".join((head, self.OWN.pack(*q.own), kept, q.side, tables, stream, escapes)))

    # Decoding

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        return self._parse(payload, num_params).decode()

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        self._parse(payload, accumulator.acc.size).accumulate(weight, accumulator)

    def _parse(self, payload: bytes | memoryview, num_params: int) -> Payload:
        """What `payload` says; CodecError if it is malformed before the stream's end."""
        sections = self._sections(num_params)
        view = self._bytes_of(payload)
        if len(view) < _RAW_HEAD.size or _core.crc32c(view[_CRC.size :]) != _CRC.unpack_from(view)[0]:
            raise CodecError(f"{self.name}: payload fails its CRC32C: dropped")
        form = view[_CRC.size]
        if form == RAW:
            self._check_length(payload, self.bound(num_params))
            return Raw(finite(np.frombuffer(view[_RAW_HEAD.size :], "<f4").astype(np.float32, copy=False)))
        live = form & LIVE and form & ENERGIES and "live" in self.FORMS
        if form & ~(3 | LIVE | ESCAPES | WIDE | ENERGIES) or (
            (form & LIVE or form & 3 == LANES.index(16)) and not live
        ):
            raise CodecError(f"{self.name}: payload of unknown form {form}: update edgefl on this side")
        try:
            return self._parse_coded(Reader(view), sections)
        except ValueError as error:
            raise CodecError(f"{self.name}: payload is malformed ({error}): dropped") from None

    def _parse_coded(self, reader: Reader, sections: Sections) -> Coded:
        _, form, step = reader.unpack(_HEAD)
        step = np.float32(step)
        if not MIN_STEP <= step <= MAX_STEP:
            raise CodecError(f"{self.name}: step {step} is out of bounds: dropped")
        own = reader.unpack(self.OWN)
        kept = read_kept(reader, bool(form & WIDE), sections.num_kept)
        energies, groups = self._read_energies(reader, sections) if form & ENERGIES else (None, None)
        frequencies = read_tables(reader)
        if len(frequencies) > self.most_tables if groups is None else len(frequencies) != int(groups[-1]) + 1:
            raise CodecError(f"{self.name}: payload has other tables than its contexts: dropped")
        escapes = self._read_escapes(reader, sections) if form & ESCAPES else np.zeros(0, np.float32)
        if frequencies[:, ESCAPE].any() and not len(escapes):
            raise CodecError(f"{self.name}: a frequency for escapes, and the payload has no escapes: dropped")

        def contexts(start: int, n: int) -> np.ndarray | None:
            if energies is None:
                return self._contexts(own, len(frequencies), start, n)
            return self._with_energies(energies, own, start, n, groups)

        found: places.Places = places.Runs(sections, contexts)
        if energies is not None and groups is not None and form & LIVE:
            found = places.live(sections, energies, groups)
        lanes, stream = LANES[form & 3], reader.rest
        return Coded(sections, found, self._levels(step, own), frequencies, lanes, stream, kept, escapes)

    def _read_energies(self, reader: Reader, sections: Sections) -> tuple[Energies, np.ndarray]:
        if not sections.matrices:
            raise CodecError(f"{self.name}: payload with energies, for another model: dropped")
        groups = read_groups(reader)
        return Energies.read(reader, sections.matrices), groups

    def _read_escapes(self, reader: Reader, sections: Sections) -> np.ndarray:
        (count,) = reader.unpack(_COUNT)
        if count > sections.num_coded:
            raise CodecError(f"{self.name}: more escapes than coordinates: dropped")
        return finite(np.frombuffer(reader.take_last(4 * count), "<f4").astype(np.float32, copy=False))


def _seal(rest: bytes) -> bytes:
    return _CRC.pack(_core.crc32c(rest)) + rest
