# Live rows and columns of an update's matrices: codecs/live.h for Python. Included by core.pyx.

cdef enum:
    ADDED_AT_ONCE = 32768  # symbols; with their contexts, they stay in the second cache


cdef class Live:
    """The live symbols of matrices, one matrix after another.

    `classes` has those of the rows and then of the columns of each matrix, `shapes` (M, 2) their sizes, `starts` (M,)
    where each begins in a vector of `size` coordinates. `groups` (32,): the table of each context.
    """
    cdef efl_live *of
    cdef void *room
    cdef Py_ssize_t matrices
    cdef int64_t size
    cdef uint8_t groups[EFL_ENERGY_CONTEXTS]
    cdef readonly int64_t count

    def __cinit__(self, const uint8_t[::1] classes not None, const int64_t[:, ::1] shapes not None,
                  const int64_t[::1] starts not None, int64_t size, const uint8_t[::1] groups not None):
        cdef int64_t total = 0, at = 0
        cdef Py_ssize_t i
        cdef efl_live *live
        self.matrices, self.size = shapes.shape[0], size
        if shapes.shape[1] != 2 or starts.shape[0] != self.matrices or groups.shape[0] != EFL_ENERGY_CONTEXTS:
            raise ValueError("shapes must be (M, 2), starts (M,), groups (32,)")
        for i in range(self.matrices):
            if min(shapes[i, 0], shapes[i, 1], starts[i]) < 0 or starts[i] + shapes[i, 0] * shapes[i, 1] > size:
                raise ValueError("a matrix lies outside of the vector")
            total += shapes[i, 0] + shapes[i, 1]
        if classes.shape[0] != total:
            raise ValueError("classes must be those of all rows and columns")
        if total and efl_largest(&classes[0], total) >= EFL_CLASSES:
            raise ValueError("a class is above 15")
        memcpy(self.groups, &groups[0], EFL_ENERGY_CONTEXTS)
        self.of = <efl_live *>malloc(max(1, self.matrices) * sizeof(efl_live))
        self.room = malloc(max(1, total) * (sizeof(int32_t) + 1) + 1)
        if self.of == NULL or self.room == NULL:
            raise MemoryError
        for i in range(self.matrices):
            live = &self.of[i]
            live.start = starts[i]
            live.rows, live.row_classes = <int32_t *>self.room + at, <uint8_t *>self.room + 4 * total + at
            at += shapes[i, 0]
            live.columns, live.column_classes = <int32_t *>self.room + at, <uint8_t *>self.room + 4 * total + at
            at += shapes[i, 1]
            efl_live_fill(live, &classes[0] + at - shapes[i, 0] - shapes[i, 1], shapes[i, 0],
                          &classes[0] + at - shapes[i, 1], shapes[i, 1])
            self.count += live.R * live.C

    def __dealloc__(self):
        free(self.of)
        free(self.room)

    cdef int _check(self, int64_t start, int64_t n) except -1:
        if start < 0 or start + n > self.count:
            raise ValueError("more symbols than are live")
        return 0

    def gather(self, const uint8_t[::1] symbols not None):
        """(count,) uint8: the live ones among `symbols` (n,), those of all matrices one after another."""
        cdef int64_t all = 0, at = 0, before = 0
        cdef Py_ssize_t i
        found = np.empty(self.count, np.uint8)
        cdef uint8_t[::1] view = found
        for i in range(self.matrices):
            all += (self.of[i].columns - self.of[i].rows) * self.of[i].stride
        if symbols.shape[0] != all:
            raise ValueError("symbols must be those of all matrices")
        for i in range(self.matrices):
            if self.of[i].R * self.of[i].C:
                efl_live_gather(&view[at], &symbols[before], &self.of[i])
            at += self.of[i].R * self.of[i].C
            before += (self.of[i].columns - self.of[i].rows) * self.of[i].stride
        return found

    def contexts(self, int64_t start, int64_t n):
        """(n,) uint8: the tables of live symbols from number `start` on."""
        self._check(start, n)
        contexts = np.empty(n, np.uint8)
        cdef uint8_t[::1] view = contexts
        if n:
            self.fill(&view[0], start, n)
        return contexts

    cdef void fill(self, uint8_t *contexts, int64_t start, int64_t n) noexcept nogil:
        cdef int64_t before = 0, first, last
        cdef Py_ssize_t i
        for i in range(self.matrices):
            first, last = max(start, before), min(start + n, before + self.of[i].R * self.of[i].C)
            if first < last:
                efl_live_contexts(contexts + first - start, self.groups, &self.of[i], first - before, last - first)
            before += self.of[i].R * self.of[i].C

    cdef void add_some(self, int64_t *acc, int64_t start, const uint8_t *symbols, int64_t n,
                       const int64_t *table) noexcept nogil:
        cdef int64_t before = 0, first, last
        cdef Py_ssize_t i
        for i in range(self.matrices):
            first, last = max(start, before), min(start + n, before + self.of[i].R * self.of[i].C)
            if first < last:
                efl_live_add(acc, symbols + first - start, table, &self.of[i], first - before, last - first)
            before += self.of[i].R * self.of[i].C

    def add(self, int64_t[::1] acc not None, int64_t start, const uint8_t[::1] symbols not None,
            const int64_t[::1] table not None):
        """acc (size,) += table (256,) of live `symbols` from number `start` on; table[0] is 0."""
        cdef int64_t n = symbols.shape[0]
        self._check(start, n)
        if acc.shape[0] != self.size or table.shape[0] != 256:
            raise ValueError("acc must be as long as the vector, table 256")
        if n:
            with nogil:
                self.add_some(&acc[0], start, &symbols[0], n, &table[0])

    def take(self, float[::1] out not None, int64_t start, const uint8_t[::1] symbols not None,
             const float[::1] table not None):
        """out (size,) = table (256,) of live `symbols` from number `start` on that are not 0."""
        cdef int64_t before = 0, first, last, n = symbols.shape[0]
        cdef Py_ssize_t i
        self._check(start, n)
        if out.shape[0] != self.size or table.shape[0] != 256:
            raise ValueError("out must be as long as the vector, table 256")
        with nogil:
            for i in range(self.matrices):
                first, last = max(start, before), min(start + n, before + self.of[i].R * self.of[i].C)
                if first < last:
                    efl_live_take(&out[0], &symbols[first - start], &table[0], &self.of[i], first - before,
                                  last - first)
                before += self.of[i].R * self.of[i].C

    def coordinates(self, int64_t start, const int64_t[::1] numbers not None):
        """(k,) int64: where live symbols number start + numbers (k,) lie in the vector."""
        cdef int64_t before, own
        cdef Py_ssize_t i, k
        found = np.empty(numbers.shape[0], np.int64)
        cdef int64_t[::1] view = found
        for k in range(numbers.shape[0]):
            self._check(start + numbers[k], 1)
            own, i = start + numbers[k], 0
            while own >= self.of[i].R * self.of[i].C:
                own -= self.of[i].R * self.of[i].C
                i += 1
            view[k] = (self.of[i].start + self.of[i].rows[own // self.of[i].C] * self.of[i].stride
                       + self.of[i].columns[own % self.of[i].C])
        return found


def add_stream(RansDecoder stream not None, Live live not None, int64_t[::1] acc not None,
               const int64_t[::1] table not None, int64_t most) -> int:
    """acc (size,) += table (256,) of the stream's first `most` live symbols, block after block; how many were added.

    Fewer than `most`: the stream is malformed. The GIL is released once, for all of it.
    """
    cdef int64_t done = 0, n
    cdef int ok = 1
    if acc.shape[0] != live.size or table.shape[0] != 256 or not 0 <= most <= live.count:
        raise ValueError("acc must be as long as the vector, table 256, most at most the live symbols")
    if efl_largest(live.groups, EFL_ENERGY_CONTEXTS) >= stream.tables:
        raise ValueError("a context has no table")
    cdef uint8_t *symbols = <uint8_t *>malloc(2 * ADDED_AT_ONCE)
    if symbols == NULL:
        raise MemoryError
    with nogil:
        while ok and done < most:
            n = min(most - done, ADDED_AT_ONCE)
            live.fill(symbols + ADDED_AT_ONCE, done, n)
            ok = efl_rans_decode(&stream.state, symbols, symbols + ADDED_AT_ONCE, n, stream.slots, <int>stream.tables)
            if ok:
                live.add_some(&acc[0], done, symbols, n, &table[0])
                done += n
    free(symbols)
    return done
