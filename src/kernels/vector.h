/* vector.h: `vf`, a vector of VL floats of this object's width, and its partial loads and stores.
 *
 * GCC and clang turn + - * / and comparisons of vf into the widest instructions the object's flags allow.
 * Included once per object by kernels.c; everything here is static.
 */
#if defined(__AVX512F__)
#define VL 16
#define GEMM_COLS 4 /* vectors in a register tile's row; 5 x 4 sums of 32 registers */
#elif defined(__AVX2__)
#define VL 8
#define GEMM_COLS 2 /* 5 x 2 of 16 */
#elif defined(__ARM_NEON)
#define VL 4
#define GEMM_COLS 4
#else
#define VL 4
#define GEMM_COLS 2
#endif
#define GEMM_ROWS 5

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VL * 4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), may_alias));
typedef float vf_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE vf load(const float *p) {
    return *(const vf_unaligned *)p;
}

INLINE void store(float *p, vf v) {
    *(vf_unaligned *)p = v;
}

INLINE vf splat(float x) {
    return x - (vf){0};
}

/* The first n of VL lanes, 0 < n < VL; the others load as 0 and aren't stored. */
#if defined(__AVX512F__)
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

INLINE vf absolute(vf x) {
    return (vf)((vi)x & 0x7FFFFFFF);
}
