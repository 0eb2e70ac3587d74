# Frequency tables in a payload: codecs/tables.h for Python. Included by core.pyx.

MAX_TABLES = EFL_MAX_TABLES
_TABLE_FAULTS = {
    EFL_TABLE_CUT_OFF: "payload ends within a frequency table: dropped",
    EFL_TABLE_KIND: "frequency table of unknown kind: update edgefl on this side",
    EFL_TABLE_SUM: "a frequency table does not sum to 4096: dropped",
    EFL_TABLE_NO_ZERO: "a geometric frequency table leaves nothing for zero: dropped",
    EFL_CLASSES_NOT_TWO: "payload with other than two tables for energies: dropped",
    EFL_CLASSES_CUT_OFF: "payload ends within its energies: dropped",
    EFL_CLASSES_STREAM: "payload whose energies do not end where they should: dropped",
    EFL_CLASSES_MOST: "payload with a class above 15: dropped",
}


def read_tables(const uint8_t[::1] data not None, Py_ssize_t count) -> tuple:
    """The frequencies (count, 256) uint16 of the tables that `data` begins with, and the bytes that they take.

    ValueError if malformed.
    """
    cdef int64_t at = 0, size = data.shape[0], used
    cdef Py_ssize_t i
    frequencies = np.empty((count, 256), np.uint16)
    cdef uint16_t[:, ::1] view = frequencies
    for i in range(count):
        used = efl_table_read(&view[i, 0], &data[at] if at < size else NULL, size - at)
        if used < 0:
            raise ValueError(_TABLE_FAULTS[used])
        at += used
    return frequencies, at


def read_classes(const uint8_t[::1] data not None, const uint8_t[::1] kinds not None) -> tuple:
    """The classes (N,) uint8 that `data` begins with, and the bytes that they and their tables take; `kinds` (N,), 0 or
    1, name the table of each. ValueError if malformed."""
    cdef int64_t n = kinds.shape[0], size = data.shape[0], used
    _check_contexts(kinds, n, 2)
    classes = np.empty(n, np.uint8)
    cdef uint8_t[::1] view = classes
    used = efl_classes_read(&view[0] if n else NULL, &kinds[0] if n else NULL, n, &data[0] if size else NULL, size)
    if used < 0:
        raise ValueError(_TABLE_FAULTS[used])
    return classes, used


def read_groups(uint32_t mask):
    """The group of each context, (32,) uint8, which rise by 1 where a bit of `mask` is set."""
    groups = np.empty(EFL_ENERGY_CONTEXTS, np.uint8)
    cdef uint8_t[::1] view = groups
    efl_groups_read(&view[0], mask)
    return groups


def best_tables(const uint64_t[:, ::1] counts not None) -> tuple:
    """For each row of `counts` (K, 256), the table whose bytes and symbols are shortest together: all their bytes, the
    frequencies (K, 256) uint16, and the bits of all symbols."""
    cdef Py_ssize_t i
    cdef uint8_t table[EFL_TABLE_SIZE]
    cdef double bits, sum = 0
    if counts.shape[1] != 256:
        raise ValueError("counts must be (K, 256)")
    frequencies = np.empty((counts.shape[0], 256), np.uint16)
    cdef uint16_t[:, ::1] view = frequencies
    out = bytearray()
    for i in range(counts.shape[0]):
        out += table[:efl_table_best(table, &view[i, 0], &bits, &counts[i, 0])]
        sum += bits
    return bytes(out), frequencies, sum


def write_table(const uint16_t[::1] frequencies not None) -> bytes:
    """An explicit table of `frequencies` (256,), which sum to 4096."""
    cdef uint8_t table[EFL_TABLE_SIZE]
    if frequencies.shape[0] != 256:
        raise ValueError("frequencies must be 256")
    return table[:efl_table_write(table, &frequencies[0])]


def group_contexts(const uint64_t[:, ::1] counts not None) -> tuple:
    """The cheapest tables of 32 contexts, (32,) uint8, each for a run of neighbours; about the bits of symbols and
    tables. `counts` (32, 256): how often each symbol occurs in each context."""
    cdef double bits
    groups = np.empty(EFL_ENERGY_CONTEXTS, np.uint8)
    cdef uint8_t[::1] view = groups
    if counts.shape[0] != EFL_ENERGY_CONTEXTS or counts.shape[1] != 256:
        raise ValueError("counts must be (32, 256)")
    with nogil:
        bits = efl_table_groups(&view[0], &counts[0, 0])
    return groups, bits
