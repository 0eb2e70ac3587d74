/* vector.h: `vf`, a vector of VL floats of this object's width, and its partial loads and stores.
 *
 * GCC and clang turn + - * / and comparisons of vf into the widest instructions the object's flags allow.
 * Included once per object by kernels.c; everything here is static.
 */
#if defined(EFL_PROFILE_SMALL)
#define VL 1 /* which the compiler turns into scalars */
#elif defined(__AVX512F__)
#define VL 16
#define GEMM_COLS 4 /* vectors in a register tile's row; 6 x 4 sums of 32 registers */
#define DOT_ROWS 6  /* 6 x 4 sums again */
#elif defined(__AVX2__)
#define VL 8
#define GEMM_COLS 2 /* 6 x 2 of 16 */
#define DOT_ROWS 3
#elif defined(__aarch64__)
#define NEON_64 1 /* 32 registers: not so on 32-bit ARM, which has __ARM_NEON as well */
#define VL 4
#define GEMM_COLS 4
#define DOT_ROWS 6
#elif defined(__SSE__)
#define VL 4
#define GEMM_COLS 2
#define DOT_ROWS 3
#elif defined(__ARM_NEON) /* of 32 bits: each row needs a pointer of its own, of 13 registers for all addresses */
#define VL 4
#define GEMM_COLS 2
#define GEMM_ROWS 4
#define GEMM_TALL 7
#define DOT_ROWS 2
#define FEW_REGISTERS 1
#else /* no vectors: four numbers are four of 32 registers */
#define VL 4
#define GEMM_COLS 2
#define GEMM_ROWS 2
#define GEMM_TALL 4
#define DOT_ROWS 1
#define FEW_REGISTERS 1
#endif
#ifndef GEMM_ROWS
#define GEMM_ROWS 6
#define GEMM_TALL 12 /* rows of a tile of one vector */
#endif

#if defined(__SSE__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VL * 4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), may_alias));
typedef float vf_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE vf load(const float *p) {
    return *(const vf_unaligned *)p;
}

INLINE void store(float *p, vf v) {
#if VL == 1
    *p = v[0];
#else
    *(vf_unaligned *)p = v;
#endif
}

INLINE vf splat(float x) {
    return x - (vf){0};
}

/* sum + a b. To GCC a vector of floats on 32-bit ARM is four numbers, unless arithmetic may be unsafe: its unit for
 * vectors takes denormals for 0. */
INLINE vf add_product(vf sum, vf a, vf b) {
#if defined(__ARM_NEON) && !defined(NEON_64) && VL == 4
    return (vf)vmlaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#else
    return sum + a * b;
#endif
}

/* The first n of VL lanes, 0 < n < VL; the others load as 0 and aren't stored. */
#if VL == 1 /* never called */
INLINE vf load_n(const float *p, int64_t n) {
    return n > 0 ? load(p) : splat(0);
}
INLINE void store_n(float *p, vf v, int64_t n) {
    if (n > 0) store(p, v);
}
#elif defined(__AVX512F__)
INLINE vf load_n(const float *p, int64_t n) {
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
INLINE void store_n(float *p, vf v, int64_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#elif defined(__AVX2__)
INLINE __m256i first_lanes(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
INLINE vf load_n(const float *p, int64_t n) {
    return (vf)_mm256_maskload_ps(p, first_lanes(n));
}
INLINE void store_n(float *p, vf v, int64_t n) {
    _mm256_maskstore_ps(p, first_lanes(n), (__m256)v);
}
#else
INLINE vf load_n(const float *p, int64_t n) {
    return (vf){p[0], n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
}
INLINE void store_n(float *p, vf v, int64_t n) {
    p[0] = v[0];
    if (n > 1) p[1] = v[1];
    if (n > 2) p[2] = v[2];
}
#endif

/* As above, and whole for n >= VL. */
INLINE vf load_upto(const float *p, int64_t n) {
    return n < VL ? load_n(p, n) : load(p);
}
INLINE void store_upto(float *p, vf v, int64_t n) {
    if (n < VL)
        store_n(p, v, n);
    else
        store(p, v);
}

#if VL > 1
typedef float v4 __attribute__((vector_size(16), may_alias));
typedef float v4_unaligned __attribute__((vector_size(16), aligned(4), may_alias));

/* Four lanes of a and b, numbered on, taken in each 128 bits alike. */
#if defined(__clang__)
#define SHUFFLE_4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE_4(a, b, i, j, k, l) __builtin_shuffle(a, b, (v4i){i, j, k, l})
#endif
typedef int32_t v4i __attribute__((vector_size(16), may_alias));

/* The transposed 4 x 4 matrix. */
INLINE void turn_four(v4 x[4]) {
    const v4 a = SHUFFLE_4(x[0], x[1], 0, 4, 1, 5), b = SHUFFLE_4(x[0], x[1], 2, 6, 3, 7);
    const v4 c = SHUFFLE_4(x[2], x[3], 0, 4, 1, 5), d = SHUFFLE_4(x[2], x[3], 2, 6, 3, 7);
    x[0] = SHUFFLE_4(a, c, 0, 1, 4, 5);
    x[1] = SHUFFLE_4(a, c, 2, 3, 6, 7);
    x[2] = SHUFFLE_4(b, d, 0, 1, 4, 5);
    x[3] = SHUFFLE_4(b, d, 2, 3, 6, 7);
}

/* x folded to four lanes. */
INLINE v4 fold(vf x) {
#if defined(__AVX512F__)
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)x),
                                      _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)x, 1)));
    return (v4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
    return (v4)_mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
#else
    return x;
#endif
}

/* The sums of each one's lanes. */
INLINE v4 sum_four(vf a, vf b, vf c, vf d) {
    v4 x[4] = {fold(a), fold(b), fold(c), fold(d)};
    turn_four(x);
    return (x[0] + x[1]) + (x[2] + x[3]);
}
#endif

INLINE float sum_lanes(vf v) {
    float lanes[VL];
    store(lanes, v);
    for (int width = VL / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

INLINE vf choose(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

INLINE vf square_root(vf x) {
#if VL == 1
    return (vf){sqrtf(x[0])};
#elif defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE__)
    return (vf)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
    return (vf)vsqrtq_f32((float32x4_t)x);
#else
    for (int lane = 0; lane < VL; lane++) x[lane] = sqrtf(x[lane]);
    return x;
#endif
}

INLINE vf absolute(vf x) {
    return (vf)((vi)x & 0x7FFFFFFF);
}
