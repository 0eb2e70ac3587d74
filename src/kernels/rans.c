/* rans.c: 8, 16 or 32 rANS states side by side; codecs/rans.c says what they are and is the reference. Included by
 * kernels.c.
 *
 * rans_avx2.c and rans_neon.c have vectors of 8 states, rans_avx512.c of 16; rans_body.c codes with any. A stream of 8
 * lanes is one vector of 8 on all. Other instruction sets have nothing here.
 */
#if defined(__AVX2__) || defined(NEON_64)
#include <pthread.h>

#ifdef __AVX2__
#include "rans_avx2.c"
#else
#include "rans_neon.c"
#endif
#define RANS(name) rans8_##name
#define RANS_VL 8
#include "rans_body.c"
#undef RANS
#undef RANS_VL

#ifdef __AVX512F__
#include "rans_avx512.c"
#define RANS(name) rans16_##name
#define RANS_VL 16
#include "rans_body.c"
#undef RANS
#undef RANS_VL
#define RANS_OF_16(does, ...) rans16_##does(__VA_ARGS__, 1)
#define RANS_OF_32(does, ...) rans16_##does(__VA_ARGS__, 2)
#else
#define RANS_OF_16(does, ...) rans8_##does(__VA_ARGS__, 2)
#define RANS_OF_32(does, ...) rans8_##does(__VA_ARGS__, 4)
#endif

/* The tables of masks are made when first a stream is coded, in whatever thread that is. */
static pthread_once_t rans_prepared = PTHREAD_ONCE_INIT;

static int64_t rans_decode(const efl_rans_run *run, uint32_t *state, const uint8_t **next, const uint8_t *end,
                           uint8_t *symbols, const uint32_t *slots) {
    pthread_once(&rans_prepared, rans_prepare);
    if (run->lanes == 8) return rans8_decode(run, state, next, end, symbols, slots, 1);
    if (run->lanes == 16) return RANS_OF_16(decode, run, state, next, end, symbols, slots);
    return RANS_OF_32(decode, run, state, next, end, symbols, slots);
}

static uint8_t *rans_encode(const efl_rans_run *run, uint32_t *state, uint8_t *end, const uint8_t *symbols,
                            const uint32_t *spans, const uint32_t *reciprocals, int64_t stride) {
    pthread_once(&rans_prepared, rans_prepare);
    if (run->lanes == 8) return rans8_encode(run, state, end, symbols, spans, reciprocals, stride, 1);
    if (run->lanes == 16) return RANS_OF_16(encode, run, state, end, symbols, spans, reciprocals, stride);
    return RANS_OF_32(encode, run, state, end, symbols, spans, reciprocals, stride);
}
#define EFL_RANS_DECODE rans_decode
#define EFL_RANS_ENCODE rans_encode
#else
#define EFL_RANS_DECODE NULL
#define EFL_RANS_ENCODE NULL
#endif
