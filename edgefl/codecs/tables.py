"""Frequency tables of the entropy coder in a payload: K u8, and K tables. src/codecs/tables.c has what a table is."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..errors import CodecError
from .reader import Reader

TOTAL = 4096
ESCAPE = 255
EXPLICIT, GEOMETRIC = 0, 1  # the kinds
MAX_TABLES = _core.MAX_TABLES


def best_tables(counts: np.ndarray) -> tuple[bytes, np.ndarray, float]:
    """The best table for each row of `counts` (K, 256) uint64, symbols and table being shortest together: K and the
    tables as bytes, the frequencies (K, 256), and the bits of all symbols."""
    data, frequencies, bits = _core.best_tables(counts)
    return bytes([len(counts)]) + data, frequencies, bits


def read_tables(reader: Reader) -> np.ndarray:
    """The (K, 256) frequencies that `best_tables` wrote; CodecError if malformed."""
    (count,) = reader.take(1)
    if not 1 <= count <= MAX_TABLES:
        raise CodecError(f"payload with {count} frequency tables where 1 to {MAX_TABLES} are allowed: dropped")
    return _read(reader, count)


def read_table(reader: Reader) -> np.ndarray:
    """The (256,) frequencies of one table; CodecError if malformed."""
    frequencies: np.ndarray = _read(reader, 1)[0]
    return frequencies


def _read(reader: Reader, count: int) -> np.ndarray:
    try:
        frequencies, size = _core.read_tables(reader.rest, count)
    except ValueError as error:
        raise CodecError(str(error)) from None
    reader.take(size)
    return frequencies
