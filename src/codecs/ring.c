/* ring.c: see ring.h. */
#include "ring.h"

#include "../rng.h"

#include <math.h>

static uint64_t mask_of(int m) {
    return ((uint64_t)1 << m) - 1;
}

int64_t efl_ring_bytes(int64_t n, int m) {
    return (n * m + 7) / 8;
}

void efl_ring_pack(uint8_t *data, const uint32_t *x, int m, int64_t n) {
    uint64_t bits = 0;
    int held = 0; /* of bits, below 32 between numbers */
    for (int64_t i = 0; i < n; i++) {
        bits |= (x[i] & mask_of(m)) << held;
        held += m;
        if (held >= 32) {
            for (int k = 0; k < 4; k++) *data++ = (uint8_t)(bits >> 8 * k);
            bits >>= 32, held -= 32;
        }
    }
    for (; held > 0; held -= 8, bits >>= 8) *data++ = (uint8_t)bits;
}

static uint64_t eight_bytes(const uint8_t *p) {
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

int efl_ring_add(uint32_t *acc, const uint8_t *data, int m, int64_t n) {
    const int64_t size = efl_ring_bytes(n, m);
    const int used = (int)(n * m % 8); /* bits of the last byte */
    if (used > 0 && data[size - 1] >> used != 0) return 0;
    int64_t i = 0;
    for (; i < n && i * m / 8 + 8 <= size; i++)
        acc[i] += (uint32_t)(eight_bytes(data + i * m / 8) >> i * m % 8 & mask_of(m));
    for (; i < n; i++) { /* fewer than eight bytes are left */
        uint64_t bits = 0;
        for (int64_t k = i * m / 8; k < size; k++) bits |= (uint64_t)data[k] << 8 * (k - i * m / 8);
        acc[i] += (uint32_t)(bits >> i * m % 8 & mask_of(m));
    }
    return 1;
}

/* The largest double below which every double has a int64_t, and far above every reach. */
#define FAR 9e18

/* v without what no int64_t holds, and NaN as 0: the caller has refused both, and memory is safe all the same. */
static double kept(double v) {
    return v > FAR ? FAR : v < -FAR ? -FAR : v == v ? v : 0;
}

static int64_t floor_of(double v) {
    const int64_t whole = (int64_t)v;
    return whole - (v < (double)whole);
}

void efl_ring_measure(double *squares, double *spread, const float *x, double scale, int64_t n) {
    double sum = 0, rest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double v = kept((double)x[i] * scale), f = v - (double)floor_of(v);
        sum += v * v;
        rest += f * (1 - f);
    }
    *squares = sum, *spread = rest;
}

static uint64_t put(int32_t *q, int64_t whole, int32_t reach) {
    const int64_t near = whole > reach ? reach : whole < -(int64_t)reach ? -(int64_t)reach : whole;
    *q = (int32_t)near;
    return (uint64_t)(near * near);
}

uint64_t efl_ring_round(int32_t *q, const float *x, double scale, int32_t reach, uint64_t seed, int64_t n) {
    efl_rng rng = {seed};
    uint64_t squares = 0;
    for (int64_t i = 0; i < n; i++) {
        const double v = kept((double)x[i] * scale), t = (double)(efl_rng_next(&rng) >> 11) * 0x1p-53;
        const int64_t whole = floor_of(v);
        squares += put(q + i, whole + (v - (double)whole > t), reach);
    }
    return squares;
}

uint64_t efl_ring_round_down(int32_t *q, const float *x, double scale, int32_t reach, int64_t n) {
    uint64_t squares = 0;
    for (int64_t i = 0; i < n; i++) squares += put(q + i, (int64_t)kept((double)x[i] * scale), reach);
    return squares;
}

/* (low, high) = (low + high, low - high); low(half), high(half) */
static void fold(float *restrict low, float *restrict high, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        const float sum = low[i] + high[i];
        high[i] = low[i] - high[i];
        low[i] = sum;
    }
}

void efl_hadamard(float *x, int64_t block, int64_t n) {
    const float scale = (float)(1 / sqrt((double)block));
    for (int64_t start = 0; start < n; start += block) { /* a block at a time stays in the cache */
        for (int64_t half = 1; half < block; half *= 2)
            for (int64_t i = start; i < start + block; i += 2 * half) fold(x + i, x + i + half, half);
        for (int64_t i = start; i < start + block; i++) x[i] *= scale;
    }
}
