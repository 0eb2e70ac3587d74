/* arm_ops.c: one operation, some times over, for arm_report.py, which counts instructions: of two runs that differ in
 * their repeats, the difference is what the operation takes. arm_ops NAME REPEATS prints how many units one repeat has.
 */
#include "codecs/codecs.h"
#include "efl.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 32768, TABLES = 2 }; /* symbols */

static float a[20000], b[20000], c[20000];
static uint8_t symbols[N], contexts[N], back[N], room[4 * N], data[N];
static efl_rans_table coder[TABLES];
static efl_rans_slots slots[TABLES];

/* Of 1,000 symbols some are not 0, fewer in one context. */
static void fill(int some) {
    uint64_t counts[TABLES * 256] = {0};
    uint32_t state = 1;
    for (int i = 0; i < N; i++) {
        state = state * 1664525u + 1013904223u;
        contexts[i] = (uint8_t)(i / 64 % TABLES);
        symbols[i] = (uint8_t)(state >> 22 < (uint32_t)(some >> contexts[i]) ? 1 + (state >> 12 & 3) : 0);
        data[i] = (uint8_t)(state >> 24);
    }
    efl_count_symbols(counts, symbols, contexts, N);
    for (int i = 0; i < TABLES; i++) {
        efl_rans_normalise(&coder[i], counts + 256 * i);
        if (!efl_rans_prepare_encoder(&coder[i]) || !efl_rans_prepare_decoder(&coder[i], &slots[i])) exit(1);
    }
}

static const uint8_t *encode(int lanes) {
    return efl_rans_encode(room + sizeof room, symbols, contexts, N, coder, TABLES, lanes);
}

static void decode(const uint8_t *stream, int lanes) {
    efl_rans_decoder decoder;
    if (!efl_rans_begin(&decoder, stream, room + sizeof room, lanes) ||
        !efl_rans_decode(&decoder, back, contexts, N, slots, TABLES) || memcmp(back, symbols, N) != 0)
        exit(1);
}

/* NAME is gemm or gemm_nt and its M x N x K; encode or decode, a stream's lanes and how many symbols of 1,024 are not
 * 0; or crc32c. */
int main(int argc, char **argv) {
    int m, n, k, lanes, some;
    efl_error error;
    if (argc != 3) return 2;
    efl_crc32c_init();
    if (efl_isa_select(NULL, &error) != EFL_OK) return 1;
    const int repeats = atoi(argv[2]);
    if (sscanf(argv[1], "gemm %dx%dx%d", &m, &n, &k) == 3) {
        for (int i = 0; i < repeats; i++) efl_kernels->gemm(c, n, a, k, 1, b, n, NULL, m, n, k, 0);
        return printf("%d\n", m * n * k), 0;
    }
    if (sscanf(argv[1], "gemm_nt %dx%dx%d", &m, &n, &k) == 3) {
        for (int i = 0; i < repeats; i++) efl_kernels->gemm_nt(c, n, a, b, m, n, k);
        return printf("%d\n", m * n * k), 0;
    }
    if (strcmp(argv[1], "crc32c") == 0) {
        for (int i = 0; i < repeats; i++) (void)efl_crc32c(0, data, N);
    } else if (sscanf(argv[1], "encode %d %d", &lanes, &some) == 2) {
        fill(some);
        for (int i = 0; i < repeats; i++) (void)encode(lanes);
    } else if (sscanf(argv[1], "decode %d %d", &lanes, &some) == 2) {
        fill(some);
        const uint8_t *stream = encode(lanes);
        for (int i = 0; i < repeats; i++) decode(stream, lanes);
    } else
        return 2;
    return printf("%d\n", N), 0;
}
