/* crc32c_hw.c: CRC32C with the processor's own instruction, where this object's instruction set has it. */
#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define EFL_CRC_8(state, word) _mm_crc32_u64(state, word)
#define EFL_CRC_1(state, byte) _mm_crc32_u8(state, byte)
#define EFL_CRC_TARGET
#elif defined(__aarch64__) && !defined(EFL_PROFILE_SMALL) && (defined(__linux__) || defined(__ARM_FEATURE_CRC32))
/* Of the 64-bit Pis all have it, but the baseline does not, so this one function is built for more than that.
 * codecs/crc32c.c asks the kernel before it calls it. */
#ifdef __clang__
#define EFL_CRC_TARGET __attribute__((target("crc")))
#else
#define EFL_CRC_TARGET __attribute__((target("+crc")))
#endif
#define EFL_CRC_8(state, word) crc_8(state, word)
#define EFL_CRC_1(state, byte) crc_1(state, byte)

static inline EFL_CRC_TARGET uint32_t crc_8(uint32_t state, uint64_t word) {
    __asm__("crc32cx %w0, %w0, %1" : "+r"(state) : "r"(word));
    return state;
}
static inline EFL_CRC_TARGET uint32_t crc_1(uint32_t state, uint32_t byte) {
    __asm__("crc32cb %w0, %w0, %w1" : "+r"(state) : "r"(byte));
    return state;
}
#endif

#ifdef EFL_CRC_8
static EFL_CRC_TARGET uint32_t crc32c(uint32_t state, const uint8_t *data, int64_t size) {
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        state = (uint32_t)EFL_CRC_8(state, word);
    }
    for (; size > 0; size--) state = EFL_CRC_1(state, *data++);
    return state;
}
#define EFL_CRC32C crc32c
#else
#define EFL_CRC32C NULL
#endif
