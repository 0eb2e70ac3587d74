/* symbols.c: between numbers and a quantizer's symbols. Included by kernels.c.
 *
 * Most symbols of an update are 0, so they are looked at 64 at a time: what is only zeros is passed over, and of what
 * has a few others only these are touched.
 *
 * These bits are a contract between machines: no product here may be fused with a sum.
 */
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")

enum { SYMBOLS_AT_ONCE = 4096, SYMBOLS_FEW = 20 };

/* A bit for each of 64 symbols, from the lowest on: 1 where it is not 0. */
INLINE uint64_t nonzero_64(const uint8_t *symbols) {
#if defined(__AVX2__)
    const __m256i *p = (const __m256i *)symbols, zero = _mm256_setzero_si256();
    const uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(p), zero));
    const uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(p + 1), zero));
    return ~((uint64_t)high << 32 | low);
#elif defined(__SSE2__)
    uint64_t zeros = 0;
    for (int i = 0; i < 4; i++) {
        const __m128i some = _mm_loadu_si128((const __m128i *)symbols + i);
        zeros |= (uint64_t)_mm_movemask_epi8(_mm_cmpeq_epi8(some, _mm_setzero_si128())) << (16 * i);
    }
    return ~zeros;
#elif defined(__aarch64__)
    static const uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bits[4];
    for (int i = 0; i < 4; i++) {
        const uint8x16_t some = vld1q_u8(symbols + 16 * i);
        bits[i] = vandq_u8(vtstq_u8(some, some), vld1q_u8(bit));
    }
    const uint8x16_t sums = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
#else
    uint64_t found = 0;
    for (int i = 0; i < 64; i++) found |= (uint64_t)(symbols[i] != 0) << i;
    return found;
#endif
}

/* The same for the next symbols of n, 64 at most. */
INLINE uint64_t nonzero_upto(const uint8_t *symbols, int64_t n) {
    if (n >= 64) return nonzero_64(symbols);
    uint64_t found = 0;
    for (int64_t i = 0; i < n; i++) found |= (uint64_t)(symbols[i] != 0) << i;
    return found;
}

/* The lowest place in bits, which is taken out of them. */
INLINE int next_place(uint64_t *bits) {
    const int place = __builtin_ctzll(*bits);
    *bits &= *bits - 1;
    return place;
}

/* k(N) = the magnitudes of x in steps, at most EFL_LARGEST_MAGNITUDE + 1; excess(N) = |x| - k, in 1/256 steps. */
static void magnitudes(int32_t *k, int32_t *excess, const float *x, float inverse, float rounding, int64_t n) {
    const float most = EFL_LARGEST_MAGNITUDE + 1;
    for (int64_t i = 0; i < n; i++) {
        const float steps = fabsf(x[i]) * inverse;
        const float capped = steps < most ? steps : most;
        k[i] = (int32_t)(capped + rounding);
        excess[i] = (int32_t)(capped * 256.0f) - 256 * k[i];
    }
}

static void symbols_of(uint8_t *symbols, const int32_t *k, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int32_t symbol = 2 * k[i] - ((x[i] > 0) & (k[i] > 0));
        symbols[i] = (uint8_t)(symbol < EFL_ESCAPE ? symbol : EFL_ESCAPE);
    }
}

static void quantize(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                     int64_t n) {
    int32_t k[SYMBOLS_AT_ONCE], excess[SYMBOLS_AT_ONCE];
    uint32_t histogram[4][256] = {{0}};
    for (int64_t done = 0; done < n; done += SYMBOLS_AT_ONCE) {
        const int64_t size = n - done < SYMBOLS_AT_ONCE ? n - done : SYMBOLS_AT_ONCE;
        magnitudes(k, excess, x + done, inverse, rounding, size);
        symbols_of(symbols + done, k, x + done, size);
        for (int64_t i = 0; i < size; i += 64) {
            uint64_t bits = nonzero_upto(symbols + done + i, size - i);
            histogram[0][0] += (uint32_t)((size - i < 64 ? size - i : 64) - __builtin_popcountll(bits));
            while (bits) {
                const int64_t at = i + next_place(&bits);
                histogram[at & 3][symbols[done + at]]++;
                counts->excess[k[at] > 2 ? 2 : k[at] - 1] += excess[at];
            }
        }
        if ((done / SYMBOLS_AT_ONCE & 0xFFFF) != 0xFFFF && done + size < n) continue;
        for (int symbol = 0; symbol < 256; symbol++)
            for (int way = 0; way < 4; way++) {
                counts->symbol[symbol] += histogram[way][symbol];
                histogram[way][symbol] = 0;
            }
    }
}

static uint8_t largest_byte(const uint8_t *bytes, int64_t n) {
    uint8_t most = 0;
    for (int64_t i = 0; i < n; i++) most = bytes[i] > most ? bytes[i] : most;
    return most;
}

/* counts[c] += how often context c occurs among these. */
static void count_contexts(uint32_t counts[4][256], const uint8_t *contexts, int64_t n) {
    uint8_t other = 0;
    for (int64_t i = 0; i < n; i++) other |= contexts[i] ^ contexts[0];
    if (other == 0)
        counts[0][contexts[0]] += (uint32_t)n;
    else
        for (int64_t i = 0; i < n; i++) counts[i & 3][contexts[i]]++;
}

/* counts(K,256) += how often each symbol occurs in each context. A context of NULL is 0. First all symbols count as 0,
 * then the others make up for that; a sum below 0 on the way does no harm. */
static void count_symbols(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n) {
    uint32_t in_context[4][256] = {{0}};
    for (int64_t done = 0; done < n; done += SYMBOLS_AT_ONCE) {
        const int64_t stop = n - done < SYMBOLS_AT_ONCE ? n : done + SYMBOLS_AT_ONCE;
        for (int64_t i = done; i < stop; i += 64) {
            const int64_t size = stop - i < 64 ? stop - i : 64;
            uint64_t bits = nonzero_upto(symbols + i, size);
            if (contexts)
                count_contexts(in_context, contexts + i, size);
            else
                in_context[0][0] += (uint32_t)size;
            while (bits) {
                const int64_t at = i + next_place(&bits);
                uint64_t *own = counts + ((int64_t)(contexts ? contexts[at] : 0) << 8);
                own[symbols[at]]++, own[0]--;
            }
        }
        if ((done / SYMBOLS_AT_ONCE & 0xFFFF) != 0xFFFF && stop < n) continue;
        for (int64_t context = 0; context < 256; context++)
            for (int way = 0; way < 4; way++)
                if (in_context[way][context]) {
                    counts[context << 8] += in_context[way][context];
                    in_context[way][context] = 0;
                }
    }
}

INLINE int64_t wrapping_sum(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static void add_symbols(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n) {
    for (int64_t done = 0; done < n; done += 64) {
        const int64_t size = n - done < 64 ? n - done : 64;
        uint64_t bits = nonzero_upto(symbols + done, size);
        if (table[0] != 0 || __builtin_popcountll(bits) > SYMBOLS_FEW) {
            for (int64_t i = done; i < done + size; i++) acc[i] = wrapping_sum(acc[i], table[symbols[i]]);
            continue;
        }
        while (bits) {
            const int64_t i = done + next_place(&bits);
            acc[i] = wrapping_sum(acc[i], table[symbols[i]]);
        }
    }
}

static void take_symbols(float *y, const uint8_t *symbols, const float *table, int64_t n) {
    for (int64_t done = 0; done < n; done += 64) {
        const int64_t size = n - done < 64 ? n - done : 64;
        uint64_t bits = nonzero_upto(symbols + done, size);
        if (__builtin_popcountll(bits) > SYMBOLS_FEW) {
            for (int64_t i = done; i < done + size; i++) y[i] = table[symbols[i]];
            continue;
        }
        for (int64_t i = done; i < done + size; i++) y[i] = table[0];
        while (bits) {
            const int64_t i = done + next_place(&bits);
            y[i] = table[symbols[i]];
        }
    }
}

#pragma GCC pop_options
