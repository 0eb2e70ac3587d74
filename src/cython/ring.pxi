# Vectors of m-bit numbers, and rounding: codecs/ring.h for Python. Included by core.pyx.

cdef int64_t _ring_bytes(int64_t n, int bits) except -1:
    if not 2 <= bits <= 32:
        raise ValueError("bits must be 2 to 32")
    return efl_ring_bytes(n, bits)


def ring_pack(const uint32_t[::1] x not None, int bits) -> bytes:
    """The lowest `bits` bits of each number, without gaps."""
    cdef int64_t n = x.shape[0]
    out = bytearray(_ring_bytes(n, bits))
    cdef uint8_t[::1] view = out
    if n:
        with nogil:
            efl_ring_pack(&view[0], &x[0], bits, n)
    return bytes(out)


def ring_add(uint32_t[::1] acc not None, const uint8_t[::1] data not None, int bits) -> bool:
    """acc[i] += number i of `data`, modulo 2**32; False, and nothing is added, if there are bits after the last one."""
    cdef int64_t n = acc.shape[0]
    cdef int whole = 1
    if data.shape[0] != _ring_bytes(n, bits):
        raise ValueError("data must have as many numbers as acc")
    if n:
        with nogil:
            whole = efl_ring_add(&acc[0], &data[0], bits, n)
    return whole == 1


def ring_measure(const float[::1] x not None, double scale) -> tuple:
    """The sum of squares of x * scale, and what rounding at random adds to it in the mean."""
    cdef double squares = 0, spread = 0
    cdef int64_t n = x.shape[0]
    if n:
        with nogil:
            efl_ring_measure(&squares, &spread, &x[0], scale, n)
    return squares, spread


def ring_round(const float[::1] x not None, double scale, int32_t reach, seed) -> tuple:
    """Integers next to x * scale, (N,) int32, at most `reach` in size, and the sum of their squares modulo 2**64. Up or
    down by numbers from the 64 bits of `seed`; None: toward 0."""
    cdef int64_t n = x.shape[0]
    cdef uint64_t squares = 0, start = 0 if seed is None else seed
    cdef bint down = seed is None
    if reach < 1:
        raise ValueError("reach must be positive")
    out = np.zeros(n, np.int32)
    cdef int32_t[::1] view = out
    if n:
        with nogil:
            if down:
                squares = efl_ring_round_down(&view[0], &x[0], scale, reach, n)
            else:
                squares = efl_ring_round(&view[0], &x[0], scale, reach, start, n)
    return out, squares


def hadamard(float[::1] x not None, int64_t block) -> None:
    """x = H x / sqrt(block) in each `block` of x, a power of two."""
    cdef int64_t n = x.shape[0]
    if block < 1 or block & (block - 1) or n % block:
        raise ValueError("block must be a power of two, and x some of them")
    if n:
        with nogil:
            efl_hadamard(&x[0], block, n)
