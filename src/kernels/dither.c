/* dither.c: quantization with subtractive dither (Schuchman 1964; Ziv 1985): a number u in [-1/2, 1/2) that both sides
 * draw from a seed and the coordinate's number is added before rounding and taken away after. Included by kernels.c.
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

/* 32 bits of coordinate i; from 2^32 on they repeat. */
INLINE uint32_t dither_bits(uint64_t seed, uint32_t i) {
    return mix_bits(mix_bits(i ^ (uint32_t)seed) + (uint32_t)(seed >> 32));
}

/* 17 bits after the point: magnitude minus dither is exact in float32. */
INLINE float dither_at(uint64_t seed, uint32_t i) {
    return (float)(int32_t)(2 * (dither_bits(seed, i) >> 16) + 1) * 0x1p-17f - 0.5f;
}

/* What symbol to expect depends on the dither. Where it is negative all is mirrored, the symbol's sign too: so the first
 * bits of its size are context enough. */
static void dither_contexts(uint8_t *contexts, int bits, uint64_t seed, int64_t start, int64_t n) {
    const uint32_t first = (uint32_t)start;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t h = dither_bits(seed, first + (uint32_t)i);
        contexts[i] = (uint8_t)(((int32_t)h < 0 ? h : ~h) << 1 >> (32 - bits));
    }
}

static void dither_quantize(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n) {
    const float most = EFL_LARGEST_MAGNITUDE + 1;
    for (int64_t i = 0; i < n; i++) {
        const float dither = dither_at(seed, (uint32_t)i);
        const float steps = x[i] * inverse + dither;
        const float far = fabsf(steps);
        const float shifted = copysignf(far < most ? far : most, steps) + 0.5f;
        const int32_t truncated = (int32_t)shifted;
        const int32_t q = truncated - ((float)truncated > shifted);
        const int32_t flip = dither < 0 ? -1 : 0, mirrored = (q ^ flip) - flip;
        const int32_t sign = mirrored >> 31, size = (mirrored ^ sign) - sign;
        const int32_t symbol = 2 * size - (mirrored > 0);
        symbols[i] = (uint8_t)(symbol < EFL_ESCAPE ? symbol : EFL_ESCAPE);
    }
}

INLINE float dither_value(uint8_t symbol, float step, uint64_t seed, uint32_t i) {
    const int32_t magnitude = (symbol + 1) / 2;
    const float dither = dither_at(seed, i);
    const float mirrored = (float)(symbol & 1 ? magnitude : -magnitude);
    const float value = ((dither < 0 ? -mirrored : mirrored) - dither) * step;
    return symbol == EFL_ESCAPE ? 0 : value;
}

static void dither_take(float *y, const uint8_t *symbols, float step, uint64_t seed, int64_t start, int64_t n) {
    const uint32_t first = (uint32_t)start;
    for (int64_t i = 0; i < n; i++) y[i] = dither_value(symbols[i], step, seed, first + (uint32_t)i);
}

/* Rounds by adding 1.5 2^52, which is llrint for what is below 2^51, in vectors. */
static void dither_add(int64_t *acc, const uint8_t *symbols, float step, int64_t weight, uint64_t seed, int64_t start,
                       int64_t n) {
    const double magic = 0x1.8p52, scale = 0x1p30;
    const uint32_t first = (uint32_t)start;
    const int small = (double)step * (EFL_LARGEST_MAGNITUDE + 1) * scale < 0x1p51;
    for (int64_t i = 0; small && i < n; i++) {
        const double shifted = (double)dither_value(symbols[i], step, seed, first + (uint32_t)i) * scale + magic;
        int64_t bits, zero;
        memcpy(&bits, &shifted, 8);
        memcpy(&zero, &magic, 8);
        acc[i] = (int64_t)((uint64_t)acc[i] + (uint64_t)(bits - zero) * (uint64_t)weight);
    }
    for (int64_t i = 0; !small && i < n; i++) {
        const double fixed = (double)dither_value(symbols[i], step, seed, first + (uint32_t)i) * scale;
        const int64_t integer = fabs(fixed) < 0x1p63 ? (int64_t)llrint(fixed) : 0;
        acc[i] = (int64_t)((uint64_t)acc[i] + (uint64_t)integer * (uint64_t)weight);
    }
}

#pragma GCC pop_options
