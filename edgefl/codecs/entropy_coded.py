"""What the entropy-coded codecs share: one step for the whole update, symbols, rANS, and a format that trusts nobody.

    CRC-32C u32 of the rest | form u8 | step f32 | the quantizer's own numbers | kept coordinates | energies, if any
    | tables u8 | tables | escapes u32, if any | rANS stream | escapes' values, float32 each

little-endian. `form` has RAW (then float32s follow and nothing else) or says how many lanes the stream has, whether
kept coordinates are float32, whether contexts follow from energies (energy.py), and whether there are escapes:
coordinates too large for a symbol, written as they are.
Every length follows from P and the plan's tensors. Decoding is integer work and one float32 product a coordinate, so
all machines decode the same bits; a payload that fails half way is taken back exactly, by adding it with the opposite
sign.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..errors import CodecError, UsageError
from .base import Codec
from .coded import Parsed, Piece, Quantized, to_fixed
from .energy import Energies, Matrices, groups_from_bytes
from .sections import Sections, check_exact, finite, kept_from_bytes, kept_to_bytes
from .step_search import MAX_STEP, MIN_STEP, clip_step, search
from .tables import ESCAPE, read_tables

BLOCK = 65536  # coordinates decoded at a time
LANES = (1, 8, 32)
RAW, ESCAPES, WIDE, ENERGIES = 0x80, 0x10, 0x20, 0x40
# Where updates shrink, former losses dwarf the fresh one, and a step for that alone would write out all of their digits
# at once. So the step is at least FINEST of what the two together would take, and the losses go out over a few rounds.
# This floor ends at COARSEST rms of the two: the losses' rms is up to 0.6 step, so a floor above 1 / 0.6 would raise
# the losses that raise it, until nothing is sent any more.
FINEST, COARSEST = 0.3, 1.5
_HEAD = struct.Struct("<IBf")
_RAW_HEAD = struct.Struct("<IB")
_CRC = struct.Struct("<I")
_NOWHERE = np.zeros(0, np.intp)


class EntropyCoded(Codec):
    """Base of ecq and its kin. Options: `step` (the quantizer's, in rms of the fresh update), or `bits` a squeezed
    coordinate, beside what is kept; `exact` (which tensors are kept, see sections.py); `max_bytes`, of all."""

    default_step = 5.0
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

    # The quantizer

    @abstractmethod
    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        """Symbols of `x` at this step."""

    @abstractmethod
    def _add_energies(self, q: Quantized, x: np.ndarray, matrices: Matrices) -> Quantized:
        """`q`, with energies of the `matrices` that x is where they pay."""

    @abstractmethod
    def _check_own(self, parsed: Parsed) -> None:
        """CodecError if the quantizer's own numbers are none."""

    def _contexts(self, parsed: Parsed, start: int, n: int) -> np.ndarray | None:
        """The contexts (n,) of coordinates `start` on, as `Quantized` had them."""
        if parsed.energies is None:
            return None
        return parsed.energies.contexts(np.zeros(n, np.uint8), start, parsed.groups)

    @abstractmethod
    def _largest(self, parsed: Parsed) -> float:
        """A bound of what any symbol of the table stands for."""

    @abstractmethod
    def _take(self, parsed: Parsed, symbols: np.ndarray, out: np.ndarray) -> None:
        """Into `out` (n,) float32 what `symbols` (n,) stand for; 0 for escapes."""

    @abstractmethod
    def _add(self, parsed: Parsed, symbols: np.ndarray, weight: int, acc: np.ndarray) -> None:
        """Add to `acc` (n,) int64 `weight` times `to_fixed` of that."""

    # Encoding

    def bound(self, num_params: int) -> int:
        return _RAW_HEAD.size + 4 * num_params

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        sections = Sections(self.tensors, self.exact, len(delta))
        if any(delta[run].any() for run in sections.still):
            return self._raw(delta)
        x = sections.gather(delta, sections.coded)
        kept, wide = kept_to_bytes(sections.gather(delta, sections.kept))
        budget = self._budget(sections.num_coded, len(kept))

        def quantized(step: np.float32) -> Quantized:
            q = self._quantize(x, step)
            return self._add_energies(q, x, sections.matrices) if sections.matrices else q

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

    def rms(self, delta: np.ndarray) -> float:
        sections = Sections(self.tensors, self.exact, len(delta))
        return _core.rms(sections.gather(delta, sections.coded))

    def step_rms(self, fresh: np.ndarray, target: np.ndarray) -> float:
        return max(self.rms(fresh), min(FINEST, COARSEST / self.step) * self.rms(target))

    def _budget(self, num_coded: int, kept_bytes: int) -> int | None:
        """The bytes that the payload may have, if they decide the step."""
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
        lanes = self._lanes(bits)
        stream = max(4 * lanes, 3 * lanes + 1.0003 * bits / 8)  # a lane ends with 4 bytes, one of them used
        fixed = _HEAD.size + self.OWN.size + len(kept) + len(q.side) + len(tables)
        return fixed + stream + (4 + 4 * q.escapes if q.escapes else 0)

    def _lanes(self, bits: float) -> int:
        """How many lanes code so many bits: a lane costs three bytes; more of them are faster."""
        return 32 if bits >= 8 * 4096 else 8 if bits >= 8 * 1024 else 1

    def _write(self, q: Quantized, x: np.ndarray, kept: bytes, wide: bool) -> bytes:
        tables, frequencies, bits = q.tables
        lanes = self._lanes(bits)
        form = LANES.index(lanes) | (WIDE if wide else 0) | (ENERGIES if q.side else 0)
        escaped = b""
        if q.escapes:
            form |= ESCAPES
            escaped = x[q.symbols == ESCAPE].astype("<f4", copy=False).tobytes()
            tables += struct.pack("<I", q.escapes)
        of_contexts = frequencies if q.groups is None else frequencies[q.groups]
        stream = _core.rans_encode(q.symbols, q.contexts, of_contexts, lanes)
        head = _HEAD.pack(0, form, q.step)[_CRC.size :]
        return _seal(b"".join((head, q.own, kept, q.side, tables, stream, escaped)))

    # Decoding

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        sections = Sections(self.tensors, self.exact, num_params)
        parsed = self._parse(payload, sections, num_params)
        if isinstance(parsed, np.ndarray):
            return parsed
        out = np.zeros(num_params, np.float32)
        for piece in self._pieces(parsed, sections):
            self._take(parsed, piece.symbols, out[piece.where])
            out[piece.escaped] = piece.values
        for where, values in sections.scatter(parsed.kept):
            out[where] = values
        return out

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        sections = Sections(self.tensors, self.exact, accumulator.acc.size)
        parsed = self._parse(payload, sections, accumulator.acc.size)
        if isinstance(parsed, np.ndarray):
            return accumulator.add_f32(parsed.tobytes(), weight)
        peaks = [float(np.abs(values).max(initial=0)) for values in (parsed.kept, parsed.values)]
        with accumulator.admit(max(self._largest(parsed), *peaks), weight) as acc:
            added = 0
            try:
                for piece in self._pieces(parsed, sections):
                    self._add_piece(parsed, piece, weight, acc)
                    added += 1
            except CodecError:
                for piece in islice(self._pieces(parsed, sections), added):
                    self._add_piece(parsed, piece, -weight, acc)
                raise
            for where, values in sections.scatter(parsed.kept):
                acc[where] += to_fixed(values) * weight

    def _pieces(self, parsed: Parsed, sections: Sections) -> Iterator[Piece]:
        """All of the stream, a block and within it a run at a time; CodecError if it is not what it should be."""
        symbols = np.empty(min(BLOCK, sections.num_coded), np.uint8)
        used = 0
        try:
            stream = _core.RansDecoder(parsed.stream, parsed.frequencies, parsed.lanes)
            for start in range(0, sections.num_coded, BLOCK):
                block = symbols[: sections.num_coded - start]
                stream.next(block, self._contexts(parsed, start, len(block)))
                for inside, where in sections.pieces(start, start + len(block)):
                    part = block[inside]
                    escaped = np.flatnonzero(part == ESCAPE) + where.start if len(parsed.values) else _NOWHERE
                    values = parsed.values[used : used + len(escaped)]
                    used += len(escaped)
                    if len(values) < len(escaped):
                        raise CodecError("payload has fewer escapes than its symbols say: dropped")
                    yield Piece(part, where, escaped, values)
            stream.finish()
        except ValueError as error:
            raise CodecError(f"payload is malformed: {error}: dropped") from None
        if used < len(parsed.values):
            raise CodecError("payload has more escapes than its symbols say: dropped")

    def _add_piece(self, parsed: Parsed, piece: Piece, weight: int, acc: np.ndarray) -> None:
        self._add(parsed, piece.symbols, weight, acc[piece.where])
        acc[piece.escaped] += to_fixed(piece.values) * weight

    def _parse(self, payload: bytes | memoryview, sections: Sections, num_params: int) -> Parsed | np.ndarray:
        """What `payload` says, or the (P,) float32 vector itself if it is raw; CodecError if malformed."""
        view = memoryview(payload)
        if len(view) < _RAW_HEAD.size or _core.crc32c(view[_CRC.size :]) != _CRC.unpack_from(view)[0]:
            raise CodecError(f"{self.name}: payload fails its CRC32C: dropped")
        form = view[_CRC.size]
        if form == RAW:
            self._check_length(payload, self.bound(num_params))
            return finite(np.frombuffer(view[_RAW_HEAD.size :], "<f4").astype(np.float32, copy=False))
        if form & ~(3 | ESCAPES | WIDE | ENERGIES) or form & 3 >= len(LANES):
            raise CodecError(f"{self.name}: payload of unknown form {form}: update edgefl on this side")
        try:
            return self._parse_coded(view, form, sections)
        except (struct.error, ValueError) as error:
            raise CodecError(f"{self.name}: payload is cut off or malformed ({error}): dropped") from None

    def _parse_coded(self, view: memoryview, form: int, sections: Sections) -> Parsed:
        step = np.float32(_HEAD.unpack_from(view)[2])
        if not MIN_STEP <= step <= MAX_STEP:
            raise CodecError(f"{self.name}: step {step} is out of bounds: dropped")
        own = self.OWN.unpack_from(view, _HEAD.size)
        at = _HEAD.size + self.OWN.size
        kept_size = sections.num_kept * (4 if form & WIDE else 2)
        kept = kept_from_bytes(view[at : at + kept_size], bool(form & WIDE), sections.num_kept)
        at += kept_size
        energies, groups = None, None
        if form & ENERGIES:
            if not sections.matrices:
                raise CodecError(f"{self.name}: payload with energies, for another model: dropped")
            groups, used = groups_from_bytes(view[at:])
            at += used
            energies, used = Energies.from_bytes(view[at:], sections.matrices)
            at += used
        frequencies, used = read_tables(view[at:])
        at += used
        if groups is not None and len(frequencies) != int(groups[-1]) + 1:
            raise CodecError(f"{self.name}: payload has other tables than its contexts: dropped")
        end = len(view)
        values = np.zeros(0, np.float32)
        if form & ESCAPES:
            count = struct.unpack_from("<I", view, at)[0]
            at, end = at + 4, end - 4 * count
            if count > sections.num_coded or end < at:
                raise CodecError(f"{self.name}: more escapes than coordinates: dropped")
            values = finite(np.frombuffer(view[end:], "<f4").astype(np.float32, copy=False))
        if frequencies[:, ESCAPE].any() and not len(values):
            raise CodecError(f"{self.name}: a frequency for escapes, and none are there: dropped")
        parsed = Parsed(step, own, kept, energies, groups, frequencies, LANES[form & 3], view[at:end], values)
        self._check_own(parsed)
        return parsed


def _seal(rest: bytes) -> bytes:
    return _CRC.pack(_core.crc32c(rest)) + rest
