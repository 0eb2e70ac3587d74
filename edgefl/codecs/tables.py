"""Frequency tables of the entropy coder in a payload: 256 frequencies that sum to 4096, in a few bytes.

Two kinds; the encoder writes the one whose table and symbols are shorter together:

    explicit    0 u8 | last symbol u8 | frequencies of symbols 0 to last, one byte below 128, else two
    geometric   1 u8 | zero u8 | decay u8 | last u8, see `geometric`

A geometric table suits tiny models, whose update would be mostly tables. Reading a table is integer arithmetic, so
every machine reads the same frequencies.
"""

from __future__ import annotations

from itertools import accumulate, repeat

import numpy as np

from .. import _core
from ..errors import CodecError
from .reader import Reader

TOTAL = 4096
ESCAPE = 255
EXPLICIT, GEOMETRIC = 0, 1
MAX_TABLES = 16
LONG = 2**14  # symbols; with so many, an explicit table is negligible
IMPOSSIBLE = 1e30
_BITS = np.concatenate(([IMPOSSIBLE], 12 - np.log2(np.arange(1, TOTAL + 1))))  # of one symbol, by its frequency


def cost_bits(counts: np.ndarray, frequencies: np.ndarray) -> float:
    """The bits of symbols that occur `counts` (256,) times; at least IMPOSSIBLE if one of them has frequency 0."""
    return float(counts @ _BITS[frequencies])


def best_table(counts: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The table for symbols that occur `counts` (256,) uint64 times: its bytes and its frequencies."""
    exact = _core.rans_normalise(counts)
    candidates = [(write_explicit(exact), exact)]
    worth_it = len(candidates[0][0]) > 6 and counts.sum() < LONG
    if worth_it and (parameters := _fit_geometric(counts)) is not None:
        candidates.append((bytes([GEOMETRIC, *parameters]), geometric(*parameters)))
    return min(candidates, key=lambda c: 8 * len(c[0]) + cost_bits(counts, c[1]))


def best_tables(counts: np.ndarray) -> tuple[bytes, np.ndarray, float]:
    """The best table for each row of `counts` (K, 256): K and the tables as bytes, the frequencies (K, 256), and the
    bits of all symbols."""
    found = [best_table(row) for row in counts]
    frequencies = np.stack([f for _, f in found])
    bits = sum(cost_bits(row, f) for row, f in zip(counts, frequencies, strict=True))
    return b"".join((bytes([len(found)]), *(data for data, _ in found))), frequencies, bits


def read_tables(reader: Reader) -> np.ndarray:
    """The (K, 256) frequencies that `best_tables` wrote; CodecError if malformed."""
    (count,) = reader.take(1)
    if not 1 <= count <= MAX_TABLES:
        raise CodecError(f"payload with {count} frequency tables where 1 to {MAX_TABLES} are allowed: dropped")
    return np.stack([read_table(reader) for _ in range(count)])


def read_table(reader: Reader) -> np.ndarray:
    """The (256,) frequencies of a table of either kind; CodecError if malformed."""
    (kind,) = reader.take(1)
    if kind == EXPLICIT:
        return _read_explicit(reader)
    if kind == GEOMETRIC:
        return geometric(*reader.take(3))
    raise CodecError(f"frequency table of unknown kind {kind}: update edgefl on this side")


def write_explicit(frequencies: np.ndarray) -> bytes:
    """An explicit table. The first of two bytes of a frequency has its high bit set."""
    last = int(np.flatnonzero(frequencies)[-1])
    out = bytearray([EXPLICIT, last])
    for frequency in frequencies[: last + 1].tolist():
        out += bytes([frequency]) if frequency < 128 else bytes([128 | frequency >> 8, frequency & 255])
    return bytes(out)


def _read_explicit(reader: Reader) -> np.ndarray:
    """The (256,) frequencies that `write_explicit` wrote after the kind."""
    data, at = reader.rest, 1
    frequencies = np.zeros(256, np.uint16)
    try:
        for symbol in range(data[0] + 1):
            first = data[at]
            frequencies[symbol] = first if first < 128 else (first & 127) << 8 | data[at + 1]
            at += 1 if first < 128 else 2
    except IndexError:
        raise CodecError("payload ends within a frequency table: dropped") from None
    if int(frequencies.sum(dtype=np.int64)) != TOTAL:
        raise CodecError(f"a frequency table does not sum to {TOTAL}: dropped")
    reader.take(at)
    return frequencies


def geometric(zero: int, decay: int, last: int) -> np.ndarray:
    """(256,) frequencies of a quantizer's symbols 0, +1, -1, +2, -2, ...; CodecError if they leave nothing for 0.

        f(0) about 16 zero,    f(+k) = f(-k) about proportional to (decay / 256)^k for k = 1 to last & 127

    f(ESCAPE) is 1 if last is above 127, else 0.
    """
    escape, last = last >> 7, last & 127
    weights = list(accumulate(repeat(decay, last - 1), lambda weight, decay: weight * decay >> 8, initial=1 << 32))
    room, total = TOTAL - 16 * zero - 8, 2 * sum(weights[:last])
    nonzero = [max(1, room * weight // total) for weight in weights[:last]]
    rest = TOTAL - 2 * sum(nonzero) - escape
    if rest < 1:
        raise CodecError("a geometric frequency table leaves nothing for zero: dropped")
    frequencies = np.zeros(256, np.uint16)
    frequencies[0], frequencies[ESCAPE] = rest, escape
    frequencies[1 : 2 * last + 1] = np.repeat(np.array(nonzero, np.uint16), 2)
    return frequencies


def _fit_geometric(counts: np.ndarray) -> tuple[int, int, int] | None:
    """Parameters near the best for `counts`; None if no geometric table has a frequency for each symbol."""
    total, nonzero = int(counts.sum()), int(counts[1:ESCAPE].sum())
    used = np.flatnonzero(counts[:ESCAPE])
    last = (int(used[-1]) + 1) // 2 if len(used) else 0
    flags = last | (128 if counts[ESCAPE] else 0)
    share = int(counts[0]) / max(1, total)
    magnitudes = (np.arange(ESCAPE) + 1) // 2
    mean = float((counts[:ESCAPE] * magnitudes).sum()) / max(1, nonzero)
    decay = 256 * (1 - 1 / mean) if mean > 1 else 0.0
    best: tuple[float, tuple[int, int, int]] | None = None
    for zero in {min(255, max(0, round(256 * share - 0.5) + d)) for d in (-1, 0, 1)}:
        for slope in {min(255, max(0, round(decay) + d)) for d in (-24, -8, 0, 8)}:
            try:
                cost = cost_bits(counts, geometric(zero, slope, flags))
            except CodecError:
                continue
            if cost < IMPOSSIBLE and (best is None or cost < best[0]):
                best = cost, (zero, slope, flags)
    return best[1] if best else None
