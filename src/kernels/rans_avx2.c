/* rans_avx2.c: vectors of 8 rANS states, for rans_body.c. */
typedef __m256i rans8_vector;

/* What rans_body.c is to do: look for zeros in all vectors of a step at once; find small symbols without a table. */
#define RANS_TOGETHER(vectors) (vectors)
#define RANS_COMPARES 1

/* For every mask of 8 lanes: where each lane's word is among the next ones; and which lanes' words, moved up to the
 * end, are to be written. */
static uint32_t rans_expand[256][8], rans_compress[256][8];

static void rans_prepare(void) {
    for (uint32_t mask = 0; mask < 256; mask++) {
        uint32_t below = 0, place = 8u - (uint32_t)__builtin_popcount(mask);
        for (uint32_t lane = 0; lane < 8; lane++) {
            rans_expand[mask][lane] = below;
            if (mask >> lane & 1) below++, rans_compress[mask][place++] = lane;
        }
    }
}

INLINE __m256i rans8_splat(uint32_t x) {
    return _mm256_set1_epi32((int)x);
}
INLINE __m256i rans8_bytes(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
INLINE __m256i rans8_gather(const uint32_t *base, __m256i index) {
    return _mm256_i32gather_epi32((const int *)base, index, 4);
}
/* of[index], index below 16 */
INLINE __m256i rans8_lookup(const uint32_t *of, __m256i index) {
    const __m256i low = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)of), index);
    const __m256i high = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)(of + 8)), index);
    const __m256 above = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high), above));
}
/* Whether a < b in all lanes, both below 2^31. */
INLINE int rans8_all_below(__m256i a, __m256i b) {
    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(b, a)) == -1;
}
/* Where a >= b, both below 2^31; and a choice by that. */
typedef __m256i rans8_mask;
INLINE __m256i rans8_not_below(__m256i a, __m256i b) {
    return _mm256_cmpgt_epi32(a, _mm256_sub_epi32(b, _mm256_set1_epi32(1)));
}
INLINE __m256i rans8_choose(__m256i mask, __m256i yes, __m256i no) {
    return _mm256_blendv_epi8(no, yes, mask);
}
INLINE int rans8_any_zero(__m256i a) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(a, _mm256_setzero_si256())) != 0;
}
INLINE __m256i rans8_and(__m256i a, __m256i b) {
    return _mm256_and_si256(a, b);
}
INLINE __m256i rans8_high_product(__m256i a, __m256i b) {
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(even, odd, 0xAA);
}
INLINE int rans8_refill(__m256i *x, const uint8_t *next) {
    const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(*x, 16), _mm256_setzero_si256());
    const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(low));
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)next));
    const __m256i taken = _mm256_permutevar8x32_epi32(words, _mm256_loadu_si256((const __m256i *)rans_expand[mask]));
    *x = _mm256_blendv_epi8(*x, _mm256_or_si256(_mm256_slli_epi32(*x, 16), taken), low);
    return __builtin_popcount((unsigned)mask);
}
INLINE int rans8_spill(__m256i *x, __m256i freq, uint8_t *end) {
    const __m256i kept = _mm256_cmpgt_epi32(freq, _mm256_srli_epi32(*x, 20));
    const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(kept)) ^ 0xFF;
    const __m256i order = _mm256_loadu_si256((const __m256i *)rans_compress[mask]);
    const __m256i last = _mm256_and_si256(_mm256_permutevar8x32_epi32(*x, order), rans8_splat(0xFFFF));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(last, last), 0x08);
    _mm_storeu_si128((__m128i *)(end - 16), _mm256_castsi256_si128(packed));
    *x = _mm256_blendv_epi8(_mm256_srli_epi32(*x, 16), *x, kept);
    return __builtin_popcount((unsigned)mask);
}
/* q + 1 where rest >= freq; both are below 2^14. */
INLINE __m256i rans8_correct(__m256i q, __m256i rest, __m256i freq) {
    return _mm256_sub_epi32(q, _mm256_cmpgt_epi32(rest, _mm256_sub_epi32(freq, rans8_splat(1))));
}
/* One vector's symbols, the low bytes of v. */
INLINE void rans8_store_bytes(uint8_t *p, __m256i v) {
    const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(v, v), _mm256_setzero_si256());
    const __m256i order = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
    _mm_storel_epi64((__m128i *)p, _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order)));
}
#define rans8_add _mm256_add_epi32
#define rans8_sub _mm256_sub_epi32
#define rans8_mullo _mm256_mullo_epi32
#define rans8_srli _mm256_srli_epi32
#define rans8_slli _mm256_slli_epi32
