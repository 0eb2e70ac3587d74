/* first_use.c: streams of symbols that several threads code at once, before any other has been: for ThreadSanitizer,
 * which sees what of the codecs' tables one thread makes while another reads it.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codecs/codecs.h"
#include "codecs/rans.h"
#include "efl.h"

enum { SYMBOLS = 5000, THREADS = 4 };

static void *code(void *chosen) {
    const int lanes = *(const int *)chosen;
    static const uint8_t contexts[SYMBOLS];
    uint8_t symbols[SYMBOLS], back[SYMBOLS];
    uint64_t counts[256] = {0};
    const int64_t room = efl_rans_bound(SYMBOLS, lanes);
    uint8_t *stream = malloc((size_t)room);
    efl_rans_table *table = malloc(sizeof *table);
    efl_rans_slots *slots = malloc(sizeof *slots);
    efl_rans_decoder decoder;
    if (stream == NULL || table == NULL || slots == NULL) exit(2);
    for (int i = 0; i < SYMBOLS; i++) symbols[i] = (uint8_t)(i % 7 == 0 ? i % 23 : 0);
    efl_count_symbols(counts, symbols, contexts, SYMBOLS);
    efl_rans_normalise(table, counts);
    if (!efl_rans_prepare_encoder(table) || !efl_rans_prepare_decoder(table, slots)) exit(2);
    const uint8_t *start = efl_rans_encode(stream + room, symbols, contexts, SYMBOLS, table, 1, lanes);
    if (!efl_rans_begin(&decoder, start, stream + room, lanes) ||
        !efl_rans_decode(&decoder, back, contexts, SYMBOLS, slots, 1) || memcmp(back, symbols, SYMBOLS) != 0) {
        fprintf(stderr, "symbols on %d lanes do not come back\n", lanes);
        exit(1);
    }
    free(stream), free(table), free(slots);
    return NULL;
}

int main(void) {
    static const int lanes[THREADS] = {8, 32, 16, 8};
    pthread_t threads[THREADS];
    efl_error error;
    if (efl_isa_select(getenv("EDGEFL_ISA"), &error)) return fprintf(stderr, "%s\n", error.message), 1;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, code, (void *)&lanes[i])) return 2;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("%s: %d threads code at once\n", efl_isa(), THREADS);
    return 0;
}
