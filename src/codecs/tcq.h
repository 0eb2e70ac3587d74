/* tcq.h: the trellis of trellis-coded quantization (Marcellin, Fischer 1990; entropy-coded: Fischer, Wang 1992).
 *
 * Levels are whole numbers of steps, in four subsets by their remainder modulo 4. A state admits the levels of one
 * parity, z = state & 1: two subsets; which of the two is taken, b, decides the next state. So a symbol is a level among
 * those of one parity, level = 2 k + z, and its context is z. The code is Ungerboeck's of 8 states, 13 / 04 octal:
 * with state = w1 + 2 w2 + 4 w3 and z = w1, next w1 = w2 ^ w1, w2 = w3 ^ b, w3 = w1.
 */
#ifndef EFL_TCQ_H
#define EFL_TCQ_H

#include "rans.h"

#define EFL_TCQ_STATES 8
#define EFL_TCQ_LARGEST 119   /* beyond so many steps a number is an escape; its level may be four steps further */
#define EFL_TCQ_ESCAPE 127    /* its level; it counts as b = 0 */

static inline int efl_tcq_next(int state, int b) {
    const int w1 = state & 1, w2 = state >> 1 & 1, w3 = state >> 2;
    return (w2 ^ w1) | (w3 ^ b) << 1 | w1 << 2;
}

/* The two states that lead to this one. */
static inline int efl_tcq_from(int state, int which) {
    const int w1 = state >> 2, w2 = (state & 1) ^ w1;
    return w1 | w2 << 1 | which << 2;
}

/* The subset, 0 to 3, of the levels that lead from one state to the next. */
static inline int efl_tcq_subset(int from, int state) {
    return (from & 1) + 2 * ((from >> 2) ^ (state >> 1 & 1));
}

/* Levels to symbols, zig-zag of k, 255 for an escape, and their contexts: 32 trellises that begin in state 0. */
void efl_tcq_symbols(uint8_t *symbols, uint8_t *contexts, const int8_t *levels, int64_t n);
/* Adds, over levels of size 1, 2, more, how often each occurs, and the sum of how many 1/256 steps |x| is above it. */
void efl_tcq_excess(int64_t counts[3], int64_t sums[3], const float *x, const int8_t *levels, float inverse, int64_t n);
/* The next n symbols of a stream of 32 lanes, whose trellises begin in state 0: as levels, zig-zag, 2 |level| - 1 if
 * positive; 255 for escapes. slots: those of the two contexts. 0 if the words run out. */
int efl_tcq_decode(efl_rans_decoder *decoder, uint8_t *levels, int64_t n, const efl_rans_slots *slots);

#endif
