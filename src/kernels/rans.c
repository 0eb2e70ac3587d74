/* rans.c: 32 rANS states side by side; codecs/rans.c says what they are and is the reference. Included by kernels.c.
 *
 * The states that need a word take the next ones in the order of their lanes: a vector of words is expanded (decoder)
 * or compressed (encoder) by the mask of those states. Without AVX2 there is nothing here: a gather is what pays.
 */
#if defined(__AVX512F__)
#define RANS_VL 16
typedef __m512i rans_vector;

INLINE rans_vector rans_splat(uint32_t x) {
    return _mm512_set1_epi32((int)x);
}
INLINE rans_vector rans_bytes(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
INLINE rans_vector rans_gather(const uint32_t *base, rans_vector index) {
    return _mm512_i32gather_epi32(index, base, 4);
}
INLINE rans_vector rans_high_product(rans_vector a, rans_vector b) {
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    return _mm512_mask_blend_epi32(0xAAAA, even, odd);
}
INLINE int rans_refill(rans_vector *x, const uint8_t *next) {
    const __mmask16 low = _mm512_cmplt_epu32_mask(*x, rans_splat(1u << 16));
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)next));
    const __m512i taken = _mm512_maskz_expand_epi32(low, words);
    *x = _mm512_mask_or_epi32(*x, low, _mm512_slli_epi32(*x, 16), taken);
    return __builtin_popcount(low);
}
INLINE int rans_spill(rans_vector *x, rans_vector freq, uint8_t *end) {
    const __mmask16 full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(*x, 20), freq);
    const int count = __builtin_popcount(full);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i last = _mm512_permutexvar_epi32(_mm512_add_epi32(lane, rans_splat((uint32_t)count)),
                                                  _mm512_maskz_compress_epi32(full, *x));
    _mm256_storeu_si256((__m256i *)(end - 32), _mm512_cvtepi32_epi16(last));
    *x = _mm512_mask_srli_epi32(*x, full, *x, 16);
    return count;
}
INLINE void rans_store_bytes(uint8_t *p, const rans_vector *v) {
    for (int i = 0; i < 2; i++) _mm_storeu_si128((__m128i *)(p + 16 * i), _mm512_cvtepi32_epi8(v[i]));
}
#define RANS_OP(name) _mm512_##name##_epi32
#define RANS_AND _mm512_and_si512
#define RANS_CORRECT(q, rest, freq)                                                        \
    _mm512_mask_add_epi32(q, _mm512_cmpge_epu32_mask(rest, freq), q, _mm512_set1_epi32(1))

#elif defined(__AVX2__)
#define RANS_VL 8
typedef __m256i rans_vector;

/* For every mask of 8 lanes: where each lane's word is among the next ones; and which lanes' words, moved up to the
 * end, are to be written. Made at first use: both sides of a race write the same. */
static uint32_t rans_expand[256][8], rans_compress[256][8];

static void rans_prepare(void) {
    if (rans_compress[255][7] == 7) return;
    for (uint32_t mask = 0; mask < 256; mask++) {
        uint32_t below = 0, place = 8u - (uint32_t)__builtin_popcount(mask);
        for (uint32_t lane = 0; lane < 8; lane++) {
            rans_expand[mask][lane] = below;
            if (mask >> lane & 1) below++, rans_compress[mask][place++] = lane;
        }
    }
}
INLINE rans_vector rans_splat(uint32_t x) {
    return _mm256_set1_epi32((int)x);
}
INLINE rans_vector rans_bytes(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
INLINE rans_vector rans_gather(const uint32_t *base, rans_vector index) {
    return _mm256_i32gather_epi32((const int *)base, index, 4);
}
INLINE rans_vector rans_high_product(rans_vector a, rans_vector b) {
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(even, odd, 0xAA);
}
INLINE int rans_refill(rans_vector *x, const uint8_t *next) {
    const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(*x, 16), _mm256_setzero_si256());
    const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(low));
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)next));
    const __m256i taken = _mm256_permutevar8x32_epi32(words, _mm256_loadu_si256((const __m256i *)rans_expand[mask]));
    *x = _mm256_blendv_epi8(*x, _mm256_or_si256(_mm256_slli_epi32(*x, 16), taken), low);
    return __builtin_popcount((unsigned)mask);
}
INLINE int rans_spill(rans_vector *x, rans_vector freq, uint8_t *end) {
    const __m256i kept = _mm256_cmpgt_epi32(freq, _mm256_srli_epi32(*x, 20));
    const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(kept)) ^ 0xFF;
    const __m256i order = _mm256_loadu_si256((const __m256i *)rans_compress[mask]);
    const __m256i last = _mm256_and_si256(_mm256_permutevar8x32_epi32(*x, order), rans_splat(0xFFFF));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(last, last), 0x08);
    _mm_storeu_si128((__m128i *)(end - 16), _mm256_castsi256_si128(packed));
    *x = _mm256_blendv_epi8(_mm256_srli_epi32(*x, 16), *x, kept);
    return __builtin_popcount((unsigned)mask);
}
INLINE void rans_store_bytes(uint8_t *p, const rans_vector *v) {
    const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(v[0], v[1]), _mm256_packus_epi32(v[2], v[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)p, _mm256_permutevar8x32_epi32(bytes, order));
}
#define RANS_OP(name) _mm256_##name##_epi32
#define RANS_AND _mm256_and_si256
/* rest and freq are below 2^14 */
#define RANS_CORRECT(q, rest, freq)                                                             \
    _mm256_sub_epi32(q, _mm256_cmpgt_epi32(rest, _mm256_sub_epi32(freq, _mm256_set1_epi32(1))))
#endif

#ifdef RANS_VL
enum { RANS_LANES = 32, RANS_VECTORS = RANS_LANES / RANS_VL };

static int64_t rans_decode(uint32_t *state, const uint8_t **next, const uint8_t *end, uint8_t *symbols,
                           const uint8_t *contexts, int64_t n, const uint32_t *slots) {
    rans_vector x[RANS_VECTORS], slot[RANS_VECTORS];
    const uint8_t *word = *next;
    int64_t i = 0;
#ifndef __AVX512F__
    rans_prepare();
#endif
    memcpy(x, state, sizeof x);
    for (; i + RANS_LANES <= n && end - word >= 2 * RANS_LANES; i += RANS_LANES) {
        for (int v = 0; v < RANS_VECTORS; v++) {
            rans_vector index = RANS_AND(x[v], rans_splat(0xFFF));
            if (contexts) index = RANS_OP(add)(index, RANS_OP(slli)(rans_bytes(contexts + i + v * RANS_VL), 12));
            slot[v] = rans_gather(slots, index);
            const rans_vector freq = RANS_OP(add)(RANS_OP(srli)(slot[v], 20), rans_splat(1));
            const rans_vector offset = RANS_AND(RANS_OP(srli)(slot[v], 8), rans_splat(0xFFF));
            x[v] = RANS_OP(add)(RANS_OP(mullo)(freq, RANS_OP(srli)(x[v], 12)), offset);
            slot[v] = RANS_AND(slot[v], rans_splat(0xFF));
        }
        for (int v = 0; v < RANS_VECTORS; v++) word += 2 * rans_refill(&x[v], word);
        rans_store_bytes(symbols + i, slot);
    }
    memcpy(state, x, sizeof x);
    *next = word;
    return i;
}

static uint8_t *rans_encode(uint32_t *state, uint8_t *end, const uint8_t *symbols, const uint8_t *contexts, int64_t n,
                            const uint32_t *spans, const uint32_t *reciprocals, int64_t stride) {
    rans_vector x[RANS_VECTORS];
#ifndef __AVX512F__
    rans_prepare();
#endif
    memcpy(x, state, sizeof x);
    for (int64_t i = n - RANS_LANES; i >= 0; i -= RANS_LANES)
        for (int v = RANS_VECTORS - 1; v >= 0; v--) {
            rans_vector index = rans_bytes(symbols + i + v * RANS_VL);
            if (contexts) {
                const rans_vector context = rans_bytes(contexts + i + v * RANS_VL);
                index = RANS_OP(add)(index, RANS_OP(mullo)(context, rans_splat((uint32_t)stride)));
            }
            const rans_vector span = rans_gather(spans, index), reciprocal = rans_gather(reciprocals, index);
            const rans_vector freq = RANS_AND(span, rans_splat(0xFFFF));
            end -= 2 * rans_spill(&x[v], freq, end);
            /* The reciprocal is rounded down: the quotient is right or one too small. */
            const rans_vector q = rans_high_product(x[v], reciprocal);
            const rans_vector rest = RANS_OP(sub)(x[v], RANS_OP(mullo)(q, freq));
            const rans_vector quotient = RANS_CORRECT(q, rest, freq);
            const rans_vector grown = RANS_OP(mullo)(quotient, RANS_OP(sub)(rans_splat(4096), freq));
            x[v] = RANS_OP(add)(RANS_OP(add)(x[v], RANS_OP(srli)(span, 16)), grown);
        }
    memcpy(state, x, sizeof x);
    return end;
}
#define EFL_RANS_DECODE rans_decode
#define EFL_RANS_ENCODE rans_encode
#else
#define EFL_RANS_DECODE NULL
#define EFL_RANS_ENCODE NULL
#endif
