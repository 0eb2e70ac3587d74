/* bits.c: a bit for each element that a relu or clip let through, in place of its value (ops/bits.c). */

enum { WORD = 32 };

/* Bit `from` of a word belongs to the first lane. */
INLINE vi bits_of_lanes(int from) {
    vi bits = {0};
#pragma GCC unroll 16
    for (int lane = 0; lane < VL; lane++) bits[lane] = (int32_t)(1u << (from + lane));
    return bits;
}

static void keep_bits(uint32_t *bits, const float *y, float above, float below, int64_t n) {
    for (int64_t at = 0; at < n; at += WORD) {
        vi found = {0};
#pragma GCC unroll 8
        for (int from = 0; from < WORD; from += VL) {
            if (at + from >= n) break;
            const vf v = load_upto(y + at + from, n - at - from);
            found |= (vi)(v > above) & (vi)(v < below) & bits_of_lanes(from);
        }
        uint32_t word = 0;
#pragma GCC unroll 16
        for (int lane = 0; lane < VL; lane++) word |= (uint32_t)found[lane];
        bits[at / WORD] = word;
    }
}

static void bits_backward(float *dx, const float *dy, const uint32_t *bits, int64_t n) {
    for (int64_t at = 0; at < n; at += WORD) {
        const vi word = (vi){0} + (int32_t)bits[at / WORD];
#pragma GCC unroll 8
        for (int from = 0; from < WORD; from += VL) {
            if (at + from >= n) break;
            const int64_t left = n - at - from;
            const vf d = load_upto(dy + at + from, left);
            store_upto(dx + at + from, choose((word & bits_of_lanes(from)) != 0, d, splat(0)), left);
        }
    }
}
