/* live.c: symbols of live rows and columns (codecs/live.h) go where they lie. Included by kernels.c behind symbols.c.
 */

/* y(N) = table(16)[x(N)], x below 16 */
INLINE void look_up_16(uint8_t *y, const uint8_t *table, const uint8_t *x, int64_t n) {
    int64_t i = 0;
#if defined(__AVX2__)
    const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    for (int64_t left = n; n >= 32 && left > 0; left -= 32) { /* the last vector ends where x does */
        i = left < 32 ? n - 32 : n - left;
        const __m256i some = _mm256_loadu_si256((const __m256i *)(x + i));
        _mm256_storeu_si256((__m256i *)(y + i), _mm256_shuffle_epi8(both, some));
        if (left <= 32) return;
    }
#elif defined(__aarch64__)
    for (; i + 16 <= n; i += 16) vst1q_u8(y + i, vqtbl1q_u8(vld1q_u8(table), vld1q_u8(x + i)));
#endif
    for (; i < n; i++) y[i] = table[x[i]];
}

static void live_contexts(uint8_t *contexts, const uint8_t *groups, const efl_live *live, int64_t start, int64_t n) {
    uint8_t tables[EFL_CLASSES][EFL_CLASSES];
    for (int row = 0; row < EFL_CLASSES; row++)
        for (int column = 0; column < EFL_CLASSES; column++) {
            const int sum = row + column - EFL_CENTRE_CLASS;
            tables[row][column] = groups[sum > 0 ? sum : 0];
        }
    for (int64_t i = start; i < start + n;) {
        const int64_t c = i % live->C, size = live->C - c < start + n - i ? live->C - c : start + n - i;
        look_up_16(contexts + (i - start), tables[live->row_classes[i / live->C]], live->column_classes + c, size);
        i += size;
    }
}

/* WITH(coordinate, symbol) for each of live symbols start to start + n - 1 that is not 0. */
#define EACH_LIVE(symbols, live, start, n, WITH)                                                         \
    for (int64_t i = start; i < start + n;) {                                                            \
        const int64_t c = i % live->C, size = live->C - c < start + n - i ? live->C - c : start + n - i; \
        const int64_t row = live->start + live->rows[i / live->C] * live->stride;                        \
        for (int64_t done = 0; done < size; done += 64) {                                                \
            uint64_t bits = nonzero_upto(symbols + (i - start) + done, size - done);                     \
            while (bits) {                                                                               \
                const int64_t at = done + next_place(&bits);                                             \
                WITH(row + live->columns[c + at], symbols[i - start + at])                               \
            }                                                                                            \
        }                                                                                                \
        i += size;                                                                                       \
    }

static void live_add(int64_t *acc, const uint8_t *symbols, const int64_t *table, const efl_live *live, int64_t start,
                     int64_t n) {
#define ADD_ONE(at, symbol) acc[at] = wrapping_sum(acc[at], table[symbol]);
    EACH_LIVE(symbols, live, start, n, ADD_ONE)
}

static void live_take(float *y, const uint8_t *symbols, const float *table, const efl_live *live, int64_t start,
                      int64_t n) {
#define TAKE_ONE(at, symbol) y[at] = table[symbol];
    EACH_LIVE(symbols, live, start, n, TAKE_ONE)
}
