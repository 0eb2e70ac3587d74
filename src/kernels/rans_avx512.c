/* rans_avx512.c: vectors of 16 rANS states, for rans_body.c. */
typedef __m512i rans16_vector;

INLINE __m512i rans16_splat(uint32_t x) {
    return _mm512_set1_epi32((int)x);
}
INLINE __m512i rans16_bytes(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
INLINE __m512i rans16_gather(const uint32_t *base, __m512i index) {
    return _mm512_i32gather_epi32(index, base, 4);
}
/* of[index], index below 16 */
INLINE __m512i rans16_lookup(const uint32_t *of, __m512i index) {
    return _mm512_permutexvar_epi32(index, _mm512_loadu_si512(of));
}
INLINE int rans16_all_below(__m512i a, __m512i b) {
    return _mm512_cmplt_epu32_mask(a, b) == 0xFFFF;
}
typedef __mmask16 rans16_mask;
INLINE __mmask16 rans16_not_below(__m512i a, __m512i b) {
    return _mm512_cmpge_epu32_mask(a, b);
}
INLINE __m512i rans16_choose(__mmask16 mask, __m512i yes, __m512i no) {
    return _mm512_mask_blend_epi32(mask, no, yes);
}
INLINE int rans16_any_zero(__m512i a) {
    return _mm512_testn_epi32_mask(a, a) != 0;
}
INLINE __m512i rans16_and(__m512i a, __m512i b) {
    return _mm512_and_si512(a, b);
}
INLINE __m512i rans16_high_product(__m512i a, __m512i b) {
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    return _mm512_mask_blend_epi32(0xAAAA, even, odd);
}
INLINE int rans16_refill(__m512i *x, const uint8_t *next) {
    const __mmask16 low = _mm512_cmplt_epu32_mask(*x, rans16_splat(1u << 16));
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)next));
    const __m512i taken = _mm512_maskz_expand_epi32(low, words);
    *x = _mm512_mask_or_epi32(*x, low, _mm512_slli_epi32(*x, 16), taken);
    return __builtin_popcount(low);
}
INLINE int rans16_spill(__m512i *x, __m512i freq, uint8_t *end) {
    const __mmask16 full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(*x, 20), freq);
    const int count = __builtin_popcount(full);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i last = _mm512_permutexvar_epi32(_mm512_add_epi32(lane, rans16_splat((uint32_t)count)),
                                                  _mm512_maskz_compress_epi32(full, *x));
    _mm256_storeu_si256((__m256i *)(end - 32), _mm512_cvtepi32_epi16(last));
    *x = _mm512_mask_srli_epi32(*x, full, *x, 16);
    return count;
}
INLINE __m512i rans16_correct(__m512i q, __m512i rest, __m512i freq) {
    return _mm512_mask_add_epi32(q, _mm512_cmpge_epu32_mask(rest, freq), q, rans16_splat(1));
}
INLINE void rans16_store_bytes(uint8_t *p, __m512i v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(v));
}
#define rans16_add _mm512_add_epi32
#define rans16_sub _mm512_sub_epi32
#define rans16_mullo _mm512_mullo_epi32
#define rans16_srli _mm512_srli_epi32
#define rans16_slli _mm512_slli_epi32
