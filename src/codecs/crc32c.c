/* crc32c.c: CRC-32C (Castagnoli, RFC 3720 appendix B.4), reflected polynomial 0x82F63B78. */
#include "../kernels/kernels.h"
#include "codecs.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

static uint32_t table[256];
static int by_instruction = 1; /* where the kernels have it */

void efl_crc32c_init(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit++) state = (state >> 1) ^ (0x82F63B78u & (0u - (state & 1u)));
        table[byte] = state;
    }
#if defined(__aarch64__) && defined(__linux__)
    by_instruction = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

int efl_crc32c_by_instruction(void) {
    return by_instruction && efl_kernels->crc32c != NULL;
}

uint32_t efl_crc32c(uint32_t crc, const uint8_t *data, int64_t size) {
    if (efl_crc32c_by_instruction()) return ~efl_kernels->crc32c(~crc, data, size);
    return efl_crc32c_by_table(crc, data, size);
}

uint32_t efl_crc32c_by_table(uint32_t crc, const uint8_t *data, int64_t size) {
    uint32_t state = ~crc;
    for (int64_t i = 0; i < size; i++) state = table[(state ^ data[i]) & 0xFF] ^ (state >> 8);
    return ~state;
}
