/* crc32c_hw.c: CRC32C with the processor's own instruction, where this object's instruction set has it. */
#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define EFL_CRC_8(state, word) _mm_crc32_u64(state, word)
#define EFL_CRC_1(state, byte) _mm_crc32_u8(state, byte)
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define EFL_CRC_8(state, word) __crc32cd(state, word)
#define EFL_CRC_1(state, byte) __crc32cb(state, byte)
#endif

#ifdef EFL_CRC_8
static uint32_t crc32c(uint32_t state, const uint8_t *data, int64_t size) {
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
