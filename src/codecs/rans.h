/* rans.h: the entropy coder of every compressing codec: range asymmetric numeral systems (Duda 2013,
 * arXiv:1311.2540) with static tables of 12 bits, states of 32 bits, and renormalisation by 16 bits.
 *
 * Design:
 *   a) Coordinate i belongs to state i % lanes, so `lanes` chains of dependences run side by side, in one vector.
 *   b) A stream is the states, little-endian, then 16-bit words in the order in which the decoder reads them. It does
 * not contain its length: the decoder knows n from the plan, and at the end every state is EFL_RANS_LOW and every word
 *      has been read.
 *   c) A coordinate's context chooses its table. The caller gives the contexts.
 */
#ifndef EFL_RANS_H
#define EFL_RANS_H

#include <stddef.h>
#include <stdint.h>

#define EFL_RANS_BITS 12
#define EFL_RANS_TOTAL (1 << EFL_RANS_BITS)
#define EFL_RANS_LOW (1u << 16)  /* states lie in [2^16, 2^32) */
#define EFL_RANS_MAX_LANES 32   /* lanes is 1, 8, 16 or 32 */

/* One context's symbols: frequencies of all 256 sum to EFL_RANS_TOTAL. For the encoder: span is freq | start << 16,
 * start the sum of those before; reciprocal is floor((2^32 - 1) / freq). */
typedef struct {
    uint16_t freq[256];
    uint32_t span[256], reciprocal[256];
} efl_rans_table;

/* The same for decoding: for each of 4096 slots, symbol | (slot - start) << 8 | (freq - 1) << 20. */
typedef struct {
    uint32_t slot[EFL_RANS_TOTAL];
} efl_rans_slots;

typedef struct {
    uint32_t state[EFL_RANS_MAX_LANES];
    int lanes;
    const uint8_t *next, *end;
} efl_rans_decoder;

/* What a run of symbols is coded with; contexts(n) NULL: all are 0. starts[k] is where symbol k + 1 begins in each of
 * the first 16 tables, so starts[0] has the frequencies of symbol 0; reciprocals(16) are those of symbol 0. starts is
 * NULL if small symbols are not worth looking for. */
#define EFL_RANS_SMALL 5
typedef struct {
    int lanes;
    int64_t n;
    const uint8_t *contexts;
    const uint32_t (*starts)[16];
    const uint32_t *reciprocals;
} efl_rans_run;

/* Frequencies close to counts / their sum: every symbol that occurs gets 1 at least, no other gets any. All counts 0:
 * everything goes to symbol 0. */
void efl_rans_normalise(efl_rans_table *table, const uint64_t counts[256]);
/* Both from frequencies; 0 if they do not sum to EFL_RANS_TOTAL. */
int efl_rans_prepare_encoder(efl_rans_table *table);
int efl_rans_prepare_decoder(const efl_rans_table *table, efl_rans_slots *slots);

/* The most bytes of n symbols, with those below the stream that the vectors may write to. */
int64_t efl_rans_bound(int64_t n, int lanes);
/* Writes the stream of n symbols so that it ends just before `end`, and returns its first byte. contexts(n) index the
 * `count` tables, NULL is context 0 everywhere. NULL if a symbol has no frequency in its table; `efl_rans_bound` bytes
 * before `end` must be writable. */
uint8_t *efl_rans_encode(uint8_t *end, const uint8_t *symbols, const uint8_t *contexts, int64_t n,
                         const efl_rans_table *tables, int count, int lanes);

/* 0 if the stream is too short or a state is out of range. */
int efl_rans_begin(efl_rans_decoder *decoder, const uint8_t *stream, const uint8_t *end, int lanes);
/* The next n symbols, by `count` tables: n is a multiple of lanes, but for the last call. 0 if the words run out. */
int efl_rans_decode(efl_rans_decoder *decoder, uint8_t *symbols, const uint8_t *contexts, int64_t n,
                    const efl_rans_slots *slots, int count);
/* Whether every state is EFL_RANS_LOW, as the encoder began, and no byte is left. */
int efl_rans_ended(const efl_rans_decoder *decoder);

#endif
