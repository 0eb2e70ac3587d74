/* rows.c: what robust rules compute on the rows of a round, alone, for AddressSanitizer and for machines that Python is
 * not at hand for. Sizes around those of vectors and tiles, arrays that end where their memory ends; every result is
 * part of one CRC-32C, which must be the same on all machines.
 */
#include "combine/rows.h"
#include "codecs/codecs.h"
#include "efl.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPECTED 0xd814c140u
static uint32_t digest;

static void *get(int64_t count, size_t size) {
    void *memory = calloc((size_t)count, size);
    if (memory == NULL) exit(1);
    return memory;
}

static void put(const void *data, int64_t size) {
    digest = efl_crc32c(digest, data, size);
}

static void try_size(int64_t k, int64_t c) {
    float *rows = get(k * c, sizeof *rows), *out = get(k * c, sizeof *out), *one = get(c, sizeof *one);
    double *gram = get(k * k, sizeof *gram), *weights = get(k * k, sizeof *weights);
    for (int64_t i = 0; i < k * c; i++) {
        const uint32_t mixed = (uint32_t)i * 2654435761u ^ (uint32_t)(k * c);
        rows[i] = mixed >> 30 == 0 ? 0 : (float)((int32_t)(mixed >> 12 & 0xfff) - 2048) / 1023;
    }
    for (int64_t i = 0; i < k * k; i++) weights[i] = (float)(i * 7919 % 101) / 103;
    efl_gram(gram, rows, k, c);
    put(gram, k * k * (int64_t)sizeof *gram);
    efl_mix_rows(out, weights, rows, k, k, c);
    put(out, k * c * (int64_t)sizeof *out);
    efl_sort_columns(rows, k, c);
    put(rows, k * c * (int64_t)sizeof *rows);
    efl_mean_rows(one, rows, k / 3, k, c);
    put(one, c * (int64_t)sizeof *one);
    efl_mean_nearest(one, rows, k, (k + 1) / 2, c);
    put(one, c * (int64_t)sizeof *one);
    free(rows), free(out), free(one), free(gram), free(weights);
}

int main(void) {
    static const int64_t rows[] = {1, 2, 3, 4, 5, 7, 20, 33}, columns[] = {1, 3, 4, 5, 17, 511, 512, 513, 1030};
    efl_error error;
    efl_crc32c_init();
    if (efl_isa_select(getenv("EDGEFL_ISA"), &error) != EFL_OK) return puts(error.message), 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++) try_size(rows[i], columns[j]);
    if (digest != EXPECTED)
        return fprintf(stderr, "%s: rows make %08x, other machines %08x\n", efl_isa(), digest, EXPECTED), 1;
    printf("%s: rows of %d sizes, the same bits as everywhere\n", efl_isa(), (int)(sizeof rows * sizeof columns / 64));
    return 0;
}
