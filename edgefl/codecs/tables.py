"""Frequency tables of the entropy coder on the wire: (256,) numbers that sum to 4096, in a few bytes.

Two kinds, and a codec takes the shorter in total: *explicit*, every frequency up to the last symbol that occurs; and
*geometric*, three bytes for the symbols of a quantizer (0, then +1, -1, +2, -2, ...), which suits tiny models, whose
update would be mostly tables. Integer arithmetic only, so that every machine reads the same table.
"""

from __future__ import annotations

from itertools import accumulate, repeat

import numpy as np

from .. import _core
from ..errors import CodecError

TOTAL = 4096
ESCAPE = 255
EXPLICIT, GEOMETRIC = 0, 1
MAX_TABLES = 16
LONG = 2**14  # symbols, beside whose code an explicit table is nothing
IMPOSSIBLE = 1e30
_BITS = np.concatenate(([IMPOSSIBLE], 12 - np.log2(np.arange(1, TOTAL + 1))))  # of a symbol, by its frequency


def cost_bits(counts: np.ndarray, frequencies: np.ndarray) -> float:
    """Bits that symbols occurring `counts` (256,) times take with `frequencies`; IMPOSSIBLE or more if one has none."""
    return float(counts @ _BITS[frequencies])


def best_table(counts: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The table for symbols that occur `counts` (256,) uint64 times: its bytes and its frequencies."""
    exact = _core.rans_normalise(counts)
    candidates = [(bytes([EXPLICIT]) + write_explicit(exact), exact)]
    worth_it = len(candidates[0][0]) > 6 and counts.sum() < LONG
    if worth_it and (parameters := _fit_geometric(counts)) is not None:
        candidates.append((bytes([GEOMETRIC, *parameters]), geometric(*parameters)))
    return min(candidates, key=lambda c: 8 * len(c[0]) + cost_bits(counts, c[1]))


def best_tables(counts: np.ndarray) -> tuple[bytes, np.ndarray, float]:
    """For each row of `counts` (K, 256) its best table: their bytes after K, their frequencies (K, 256), and the bits
    that all symbols take."""
    found = [best_table(row) for row in counts]
    frequencies = np.stack([f for _, f in found])
    bits = sum(cost_bits(row, f) for row, f in zip(counts, frequencies, strict=True))
    return b"".join((bytes([len(found)]), *(data for data, _ in found))), frequencies, bits


def read_tables(data: memoryview) -> tuple[np.ndarray, int]:
    """The (K, 256) frequencies that `best_tables` wrote, and how many bytes they took; CodecError if malformed."""
    if not data or not 1 <= data[0] <= MAX_TABLES:
        raise CodecError("payload without frequency tables, or with too many: dropped")
    tables, at = [], 1
    for _ in range(data[0]):
        frequencies, used = read_table(data[at:])
        tables.append(frequencies)
        at += used
    return np.stack(tables), at


def read_table(data: memoryview) -> tuple[np.ndarray, int]:
    """The frequencies at the head of `data`, and how many bytes they took; CodecError if malformed."""
    try:
        if data[0] == EXPLICIT:
            return read_explicit(data)
        if data[0] == GEOMETRIC:
            return geometric(data[1], data[2], data[3]), 4
    except IndexError:
        raise CodecError("payload ends within a frequency table: dropped") from None
    raise CodecError(f"frequency table of unknown kind {data[0]}: update edgefl on this side")


def write_explicit(frequencies: np.ndarray) -> bytes:
    """Last symbol, then each frequency: below 128 in one byte, else two with the high bit of the first set."""
    last = int(np.flatnonzero(frequencies)[-1])
    out = bytearray([last])
    for frequency in frequencies[: last + 1].tolist():
        out += bytes([frequency]) if frequency < 128 else bytes([128 | frequency >> 8, frequency & 255])
    return bytes(out)


def read_explicit(data: memoryview) -> tuple[np.ndarray, int]:
    """What `write_explicit` wrote after the kind's byte; IndexError if it is cut off."""
    frequencies = np.zeros(256, np.uint16)
    at = 2
    for symbol in range(data[1] + 1):
        first = data[at]
        frequencies[symbol] = first if first < 128 else (first & 127) << 8 | data[at + 1]
        at += 1 if first < 128 else 2
    if int(frequencies.sum(dtype=np.int64)) != TOTAL:
        raise CodecError("a frequency table does not sum to 4096: dropped")
    return frequencies, at


def geometric(zero: int, decay: int, last: int) -> np.ndarray:
    """(256,) frequencies: symbol 0 near `zero`/256, magnitudes up to `last` falling by `decay`/256 each, both signs
    alike, an escape where `last` is above 127 (its lower bits are the magnitude). CodecError if that is no table."""
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
    """Parameters near the best for `counts`; None if no geometric table can code them."""
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
