/* energy.c: how much of a matrix of symbols lies in each row and column, and the contexts that follow. Included by
 * kernels.c behind symbols.c; edgefl/codecs/energy.py uses them. */

/* rows(R) and columns(C) += the magnitudes of symbols(R,C) in each. */
static void energy_sums(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C) {
    for (int64_t r = 0; r < R; r++, symbols += C)
        for (int64_t done = 0; done < C; done += 64) {
            uint64_t bits = nonzero_upto(symbols + done, C - done), sum = 0;
            while (bits) {
                const int64_t c = done + next_place(&bits);
                const uint64_t magnitude = (uint64_t)(symbols[c] + 1) >> 1;
                sum += magnitude;
                columns[c] += magnitude;
            }
            rows[r] += sum;
        }
}

/* contexts(N) = groups[contexts], groups(32), contexts below 32 */
static void look_up_contexts(uint8_t *contexts, const uint8_t *groups, int64_t n) {
    int64_t i = 0;
#if defined(__AVX2__)
    const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)groups));
    const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)groups + 1));
    for (; i + 32 <= n; i += 32) {
        const __m256i at = _mm256_loadu_si256((const __m256i *)(contexts + i));
        const __m256i below = _mm256_shuffle_epi8(low, at), above = _mm256_shuffle_epi8(high, at);
        const __m256i found = _mm256_blendv_epi8(below, above, _mm256_slli_epi16(at, 3)); /* bit 4 becomes the sign */
        _mm256_storeu_si256((__m256i *)(contexts + i), found);
    }
#elif defined(__aarch64__)
    const uint8x16x2_t both = {{vld1q_u8(groups), vld1q_u8(groups + 16)}};
    for (; i + 16 <= n; i += 16) vst1q_u8(contexts + i, vqtbl2q_u8(both, vld1q_u8(contexts + i)));
#endif
    for (; i < n; i++) contexts[i] = groups[contexts[i]];
}

/* One row's: groups[contexts[i] + row + columns[i]], the sum kept within EFL_ENERGY_CONTEXTS. */
static void energy_row(uint8_t *contexts, int row, const int8_t *columns, const uint8_t *groups, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int16_t sum = (int16_t)((int16_t)(contexts[i] + row) + columns[i]), raised = sum > 0 ? sum : 0;
        contexts[i] = (uint8_t)(raised < EFL_ENERGY_CONTEXTS ? raised : EFL_ENERGY_CONTEXTS - 1);
    }
    if (groups != NULL) look_up_contexts(contexts, groups, n);
}

static void energy_contexts(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups,
                            int64_t C, int64_t start, int64_t n) {
    for (int64_t i = start; i < start + n;) {
        const int64_t c = i % C, size = C - c < start + n - i ? C - c : start + n - i;
        energy_row(contexts + (i - start), rows[i / C], columns + c, groups, size);
        i += size;
    }
}
