/* coin.c: stochastic rounding with a coin that encoder and decoder share. Included by kernels.c.
 *
 * The seed gives coordinate i a number t in [0, 1) of 24 bits. With |x| = m steps, the magnitude is
 *     k = floor(m) + (m - floor(m) > t)
 * whose mean over t is m, to the 24 bits. A large t makes the extra step unlikely. The decoder knows t as well, so the
 * octave of t is the symbol's context.
 *
 * These bits are a contract between machines: no product here may be fused with a sum.
 */
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")

/* A bijection of 32 bits that leaves no visible pattern: xorshift, multiply, twice. */
INLINE uint32_t mix_bits(uint32_t h) {
    h = (h ^ h >> 16) * 0x7FEB352Du;
    h = (h ^ h >> 15) * 0x846CA68Bu;
    return h ^ h >> 16;
}

/* The 32 random bits of coordinate i. They repeat after 2^32 coordinates. */
INLINE uint32_t coin_bits(uint64_t seed, uint32_t i) {
    return mix_bits(mix_bits(i ^ (uint32_t)seed) + (uint32_t)(seed >> 32));
}

/* 0 for t in [1/2, 1), 1 for [1/4, 1/2) and so on: from the exponent of t 2^24, exact in float32. */
INLINE int32_t octave_of(uint32_t bits, int32_t last) {
    const float scaled = (float)(int32_t)(bits >> 8 | 1);
    int32_t raw;
    memcpy(&raw, &scaled, 4);
    const int32_t octave = 150 - (raw >> 23); /* 127 + 23 - exponent's field */
    return octave < last ? octave : last;
}

static void coin_contexts(uint8_t *contexts, int tables, uint64_t seed, int64_t start, int64_t n) {
    const uint32_t first = (uint32_t)start;
    for (int64_t i = 0; i < n; i++) contexts[i] = (uint8_t)octave_of(coin_bits(seed, first + (uint32_t)i), tables - 1);
}

static void coin_quantize(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n) {
    const float most = EFL_LARGEST_MAGNITUDE + 1;
    for (int64_t i = 0; i < n; i++) {
        const float coin = (float)(int32_t)(coin_bits(seed, (uint32_t)i) >> 8) * 0x1p-24f;
        const float far = fabsf(x[i]) * inverse;
        const float steps = far < most ? far : most;
        const int32_t whole = (int32_t)steps;
        const int32_t k = whole + (steps - (float)whole > coin);
        const int32_t symbol = 2 * k - ((x[i] > 0) & (k > 0));
        symbols[i] = (uint8_t)(symbol < EFL_ESCAPE ? symbol : EFL_ESCAPE);
    }
}

#pragma GCC pop_options
