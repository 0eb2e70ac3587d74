# Codecs and the accumulator's sums: codecs/codecs.h for Python, with buffers checked. Included by core.pyx.

def crc32c(const uint8_t[::1] data not None, uint32_t crc=0) -> int:
    """CRC-32C (RFC 3720) of `data`, continuing from `crc`."""
    cdef int64_t size = data.shape[0]
    cdef const uint8_t *start = &data[0] if size else NULL
    if size <= 131072:  # handing the GIL over and getting it back takes longer
        return efl_crc32c(crc, start, size)
    with nogil:
        crc = efl_crc32c(crc, start, size)
    return crc


cdef int64_t _count(const uint8_t[::1] payload, int width) except -1:
    if payload.shape[0] % width:
        raise ValueError(f"payload of {payload.shape[0]} bytes is no whole number of {width}-byte floats")
    return payload.shape[0] // width


cdef int64_t _matching(const uint8_t[::1] payload, int width, int64_t[::1] acc) except -1:
    if _count(payload, width) != acc.shape[0]:
        raise ValueError(f"payload of {payload.shape[0]} bytes, expected {width * acc.shape[0]}")
    return acc.shape[0]


def accumulate_f32(const uint8_t[::1] payload not None, int64_t weight, int64_t[::1] acc not None) -> None:
    """acc[i] += weight * rint(x[i] * 2**30), x little-endian float32; check `peak_f32` for headroom first."""
    cdef int64_t n = _matching(payload, 4, acc)
    if n:
        with nogil:
            efl_accumulate_f32(&acc[0], &payload[0], weight, n)


def peak_f32(const uint8_t[::1] payload not None) -> float:
    """max |x| of little-endian float32; infinity if any is not finite, 0 if there are none."""
    cdef float peak = 0
    cdef int64_t n = _count(payload, 4)
    if 0 < n <= 16384:  # handing the GIL over and getting it back takes longer
        peak = efl_peak_f32(&payload[0], n)
    elif n:
        with nogil:
            peak = efl_peak_f32(&payload[0], n)
    return peak


def to_fixed(const float[::1] x not None, int64_t weight) -> tuple:
    """`weight` times x(N) as the accumulator's fixed point, (N,) int64, and the largest |x|: infinity if any is not
    finite. A few coordinates: other threads wait."""
    fixed = np.empty(x.shape[0], np.int64)
    cdef int64_t[::1] view = fixed
    return fixed, efl_fixed(&view[0], &x[0], weight, x.shape[0]) if x.shape[0] else 0.0


def only_occurring(float[::1] levels not None, const uint16_t[:, ::1] frequencies not None) -> None:
    """levels (256,) become 0 where no row of `frequencies` (K, 256) has the symbol."""
    if levels.shape[0] != 256:
        raise ValueError("levels must be 256 long")
    efl_only_occurring(&levels[0], &frequencies[0, 0], _number_of_tables(frequencies))


def rms(const float[::1] x not None) -> float:
    """The root of the mean square of `x`; 0 of nothing."""
    return efl_rms(&x[0], x.shape[0]) if x.shape[0] else 0.0


def quantize(const float[::1] x not None, uint8_t[::1] symbols not None, float inverse, float rounding) -> tuple:
    """Symbols of x(N) into `symbols`; how often each occurs, (256,) uint64, and the three excesses, (3,) int64.

    `inverse` is 1 / step. kernels.h says what a symbol and an excess is.
    """
    counts, excess = np.zeros(256, np.uint64), np.zeros(3, np.int64)
    cdef uint64_t[::1] counts_view = counts
    cdef int64_t[::1] excess_view = excess
    cdef efl_symbol_counts found
    cdef int64_t n = x.shape[0]
    if symbols.shape[0] != n:
        raise ValueError("symbols must be as long as x")
    memset(&found, 0, sizeof(found))
    if n:
        with nogil:
            efl_quantize(&symbols[0], &found, &x[0], inverse, rounding, n)
    memcpy(&counts_view[0], found.symbol, sizeof(found.symbol))
    memcpy(&excess_view[0], found.excess, sizeof(found.excess))
    return counts, excess


def add_symbols(int64_t[::1] acc not None, const uint8_t[::1] symbols not None, const int64_t[::1] table not None):
    """acc[i] += table[symbols[i]], table (256,)."""
    cdef int64_t n = acc.shape[0]
    if symbols.shape[0] != n or table.shape[0] != 256:
        raise ValueError("symbols must be as long as acc, and table 256 long")
    if n:
        with nogil:
            efl_add_symbols(&acc[0], &symbols[0], &table[0], n)


def take_symbols(float[::1] out not None, const uint8_t[::1] symbols not None, const float[::1] table not None):
    """out[i] = table[symbols[i]], table (256,)."""
    cdef int64_t n = out.shape[0]
    if symbols.shape[0] != n or table.shape[0] != 256:
        raise ValueError("symbols must be as long as out, and table 256 long")
    if n:
        with nogil:
            efl_take_symbols(&out[0], &symbols[0], &table[0], n)


def count_symbols(const uint8_t[::1] symbols not None, const uint8_t[::1] contexts, Py_ssize_t tables):
    """(tables, 256) uint64: how often each symbol occurs in each context; None: all are in context 0."""
    counts = np.zeros((tables, 256), np.uint64)
    cdef uint64_t[:, ::1] view = counts
    cdef int64_t n = symbols.shape[0]
    _check_contexts(contexts, n, tables)
    if n:
        with nogil:
            efl_count_symbols(&view[0, 0], &symbols[0], &contexts[0] if contexts is not None else NULL, n)
    return counts


def coin_quantize(const float[::1] x not None, uint8_t[::1] symbols not None, float inverse, uint64_t seed):
    """As `quantize`, rounding up where a number in [0, 1) from `seed` is below the rest; nothing is counted."""
    cdef int64_t n = x.shape[0]
    if symbols.shape[0] != n:
        raise ValueError("symbols must be as long as x")
    if n:
        with nogil:
            efl_coin_quantize(&symbols[0], &x[0], inverse, seed, n)


def coin_contexts(uint8_t[::1] contexts not None, int tables, uint64_t seed, int64_t start):
    """The octaves, below `tables`, of the numbers of coordinates `start` on."""
    cdef int64_t n = contexts.shape[0]
    if not 1 <= tables <= 24:
        raise ValueError("tables must be 1 to 24")
    if n:
        with nogil:
            efl_coin_contexts(&contexts[0], tables, seed, start, n)


def energy_sums(const uint8_t[::1] symbols not None, Py_ssize_t rows, Py_ssize_t columns) -> tuple:
    """(rows,) and (columns,) uint64: the sums of the magnitudes in each, symbols (rows, columns) in one run."""
    by_row, by_column = np.zeros(rows, np.uint64), np.zeros(columns, np.uint64)
    cdef uint64_t[::1] row_view = by_row, column_view = by_column
    if symbols.shape[0] != rows * columns:
        raise ValueError("symbols must be as many as the matrix has")
    if rows * columns:
        with nogil:
            efl_energy_sums(&row_view[0], &column_view[0], &symbols[0], rows, columns)
    return by_row, by_column


def energy_contexts(uint8_t[::1] contexts not None, const int8_t[::1] rows not None,
                    const int8_t[::1] columns not None, const uint8_t[::1] groups, int64_t start):
    """contexts[i] += rows and columns of coordinate start + i of their matrix, kept within 32; as groups[that], if
    there are groups (32,)."""
    cdef int64_t n = contexts.shape[0]
    if start < 0 or start + n > rows.shape[0] * columns.shape[0]:
        raise ValueError("coordinates must lie in the matrix")
    if groups is not None and groups.shape[0] != EFL_ENERGY_CONTEXTS:
        raise ValueError("groups must be 32 long")
    if n:
        with nogil:
            efl_energy_contexts(&contexts[0], &rows[0], &columns[0],
                                        &groups[0] if groups is not None else NULL, columns.shape[0], start, n)


def look_up_contexts(uint8_t[::1] contexts not None, const uint8_t[::1] groups not None):
    """contexts = groups[contexts], groups (32,); contexts (N,) are below 32."""
    cdef int64_t n = contexts.shape[0]
    if groups.shape[0] != EFL_ENERGY_CONTEXTS:
        raise ValueError("groups must be 32 long")
    _check_contexts(contexts, n, EFL_ENERGY_CONTEXTS)
    if n:
        with nogil:
            efl_look_up_contexts(&contexts[0], &groups[0], n)


# ---- rANS

def rans_normalise(const uint64_t[::1] counts not None):
    """(256,) uint16 frequencies near `counts` (256,) that sum to 4096; what occurs gets 1 at least."""
    cdef efl_rans_table table
    frequencies = np.empty(256, np.uint16)
    cdef uint16_t[::1] view = frequencies
    if counts.shape[0] != 256:
        raise ValueError("counts must be 256 long")
    efl_rans_normalise(&table, &counts[0])
    memcpy(&view[0], table.freq, sizeof(table.freq))
    return frequencies


cdef Py_ssize_t _number_of_tables(const uint16_t[:, ::1] frequencies) except -1:
    if not 1 <= frequencies.shape[0] <= 256 or frequencies.shape[1] != 256:
        raise ValueError("frequencies must be (1..256, 256)")
    return frequencies.shape[0]


cdef efl_rans_table *_tables(const uint16_t[:, ::1] frequencies) except NULL:
    """As many tables as there are rows, to be freed; ValueError if one doesn't sum to 4096."""
    cdef Py_ssize_t count = _number_of_tables(frequencies), i
    cdef efl_rans_table *tables = <efl_rans_table *>malloc(count * sizeof(efl_rans_table))
    if tables == NULL:
        raise MemoryError
    for i in range(count):
        memcpy(tables[i].freq, &frequencies[i, 0], sizeof(tables[i].freq))
        if not efl_rans_prepare_encoder(&tables[i]):
            free(tables)
            raise ValueError("a table's frequencies do not sum to 4096")
    return tables


cdef int _check_contexts(const uint8_t[::1] contexts, int64_t n, Py_ssize_t tables) except -1:
    if contexts is not None:
        if contexts.shape[0] != n:
            raise ValueError("contexts must be as long as symbols")
        if n and efl_largest(&contexts[0], n) >= tables:
            raise ValueError("a context has no table")
    return 0


def rans_encode(const uint8_t[::1] symbols not None, const uint8_t[::1] contexts,
                const uint16_t[:, ::1] frequencies not None, int lanes) -> bytes:
    """The stream of `symbols` (N,), each coded by the row of `frequencies` (K, 256) that its context names, or 0."""
    cdef int64_t n = symbols.shape[0]
    cdef int64_t size = efl_rans_bound(n, lanes)
    if lanes not in (1, 8, 16, 32):
        raise ValueError("lanes must be 1, 8, 16 or 32")
    _check_contexts(contexts, n, frequencies.shape[0])
    cdef efl_rans_table *tables = _tables(frequencies)
    cdef uint8_t *buffer = <uint8_t *>malloc(size)
    cdef uint8_t *start
    try:
        if buffer == NULL:
            raise MemoryError
        with nogil:
            start = efl_rans_encode(buffer + size, &symbols[0] if n else NULL,
                                    &contexts[0] if contexts is not None and n else NULL, n, tables,
                                    <int>frequencies.shape[0], lanes)
        if start == NULL:
            raise ValueError("a symbol has no frequency")
        return start[:buffer + size - start]
    finally:
        free(buffer)
        free(tables)


cdef class RansDecoder:
    """Symbols out of one stream, as many at a time as is wanted: multiples of `lanes` but for the last.

    ValueError if the stream is malformed or a table doesn't sum to 4096.
    """
    cdef efl_rans_decoder state
    cdef efl_rans_slots *slots
    cdef Py_ssize_t tables
    cdef const uint8_t[::1] stream

    def __cinit__(self, const uint8_t[::1] stream not None, const uint16_t[:, ::1] frequencies not None, int lanes):
        cdef efl_rans_table table
        cdef Py_ssize_t i
        if lanes not in (1, 8, 16, 32):
            raise ValueError("lanes must be 1, 8, 16 or 32")
        self.stream = stream
        self.tables = _number_of_tables(frequencies)
        self.slots = <efl_rans_slots *>malloc(self.tables * sizeof(efl_rans_slots))
        if self.slots == NULL:
            raise MemoryError
        for i in range(self.tables):
            memcpy(table.freq, &frequencies[i, 0], sizeof(table.freq))
            if not efl_rans_prepare_decoder(&table, &self.slots[i]):
                raise ValueError("a table's frequencies do not sum to 4096")
        cdef const uint8_t *start = &stream[0] if stream.shape[0] else NULL
        if start == NULL or not efl_rans_begin(&self.state, start, start + stream.shape[0], lanes):
            raise ValueError("the stream is too short, or begins with a state that none is")

    def __dealloc__(self):
        free(self.slots)

    def next(self, uint8_t[::1] symbols not None, const uint8_t[::1] contexts=None) -> None:
        """The next symbols, into all of `symbols`; `contexts` (N,) name their tables."""
        cdef int64_t n = symbols.shape[0]
        cdef int ok = 1
        _check_contexts(contexts, n, self.tables)
        if n and n <= 4096:  # handing the GIL over and getting it back takes longer
            ok = efl_rans_decode(&self.state, &symbols[0], &contexts[0] if contexts is not None else NULL, n,
                                 self.slots, <int>self.tables)
        elif n:
            with nogil:
                ok = efl_rans_decode(&self.state, &symbols[0], &contexts[0] if contexts is not None else NULL, n,
                                     self.slots, <int>self.tables)
        if not ok:
            raise ValueError("the stream ends too early")

    def finish(self) -> None:
        """ValueError unless the stream has ended as the encoder began it."""
        if not efl_rans_ended(&self.state):
            raise ValueError("the stream does not end where it should")
