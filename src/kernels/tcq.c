/* tcq.c: trellis-coded quantization, the encoder's search. Included by kernels.c; codecs/tcq.h has the trellis.
 *
 * 32 trellises side by side, one a lane of the entropy coder: coordinate i belongs to lane i % 32. The Viterbi algorithm
 * finds the way of least squared error + lambda bits. These costs decide bits of payloads, which every instruction set
 * is to write alike: no product here may be fused with a sum.
 */
#include "../codecs/tcq.h"

#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")

enum { TCQ_LANES = 32, TCQ_SUBSETS = 4, TCQ_NEVER = 1 << 20 };

typedef struct {
    float cost[TCQ_SUBSETS][TCQ_LANES];
    int32_t level[TCQ_SUBSETS][TCQ_LANES];
} tcq_choice;

INLINE int32_t tcq_symbol(int32_t level, int32_t z) {
    const int32_t k = (level - z) >> 1, sign = k >> 31;
    return 2 * ((k ^ sign) - sign) - (k > 0);
}

/* Of a lane's number u, in steps, the best level of each subset: the nearest one, or its neighbour towards zero if the
 * bits that it saves are worth it. */
INLINE void tcq_choose(tcq_choice *choice, const float *u, const float *rates) {
    for (int d = 0; d < TCQ_SUBSETS; d++) {
        const float *rate = rates + 256 * (d & 1), escape = d < 2 ? 0 : (float)TCQ_NEVER;
        float *costs = choice->cost[d];
        int32_t *levels = choice->level[d];
        for (int lane = 0; lane < TCQ_LANES; lane++) {
            const float shifted = (u[lane] - (float)d) * 0.25f + 0.5f;
            const int32_t truncated = (int32_t)shifted;
            const int32_t near = 4 * (truncated - ((float)truncated > shifted)) + d;
            const int32_t small = near + 4 - 8 * (near > 0);
            const float off = u[lane] - (float)near, off_small = u[lane] - (float)small;
            const float cost = off * off + rate[tcq_symbol(near, d & 1)];
            const float cost_small = off_small * off_small + rate[tcq_symbol(small, d & 1)];
            const float best = cost_small < cost ? cost_small : cost;
            const int32_t level = cost_small < cost ? small : near;
            const int far = fabsf(u[lane]) > (float)EFL_TCQ_LARGEST;
            costs[lane] = far ? escape : best;
            levels[lane] = far ? EFL_TCQ_ESCAPE : level;
        }
    }
}

/* One step of all trellises: the cheaper of the two ways into each state. Bit s of ways[lane]: it is the second. */
INLINE void tcq_step(float cost[EFL_TCQ_STATES][TCQ_LANES], const tcq_choice *choice, uint8_t *ways) {
    float next[EFL_TCQ_STATES][TCQ_LANES];
    int32_t bits[TCQ_LANES] = {0};
    for (int state = 0; state < EFL_TCQ_STATES; state++) {
        const int from0 = efl_tcq_from(state, 0), from1 = efl_tcq_from(state, 1);
        const float *a = cost[from0], *b = cost[from1];
        const float *c0 = choice->cost[efl_tcq_subset(from0, state)], *c1 = choice->cost[efl_tcq_subset(from1, state)];
        for (int lane = 0; lane < TCQ_LANES; lane++) {
            const float first = a[lane] + c0[lane], second = b[lane] + c1[lane];
            next[state][lane] = second < first ? second : first;
            bits[lane] |= (second < first) << state;
        }
    }
    for (int lane = 0; lane < TCQ_LANES; lane++) ways[lane] = (uint8_t)bits[lane];
    for (int state = 0; state < EFL_TCQ_STATES; state++)
        for (int lane = 0; lane < TCQ_LANES; lane++) cost[state][lane] = next[state][lane] - next[0][lane];
}

static void tcq_search(int8_t *levels, const float *x, float inverse, const float *rates, uint8_t *scratch, int64_t n) {
    const int64_t steps = (n + TCQ_LANES - 1) / TCQ_LANES;
    uint8_t *ways = scratch;
    int8_t *best = (int8_t *)(scratch + TCQ_LANES * steps);
    const float far = EFL_TCQ_LARGEST + 1;
    float cost[EFL_TCQ_STATES][TCQ_LANES];
    for (int state = 0; state < EFL_TCQ_STATES; state++)
        for (int lane = 0; lane < TCQ_LANES; lane++) cost[state][lane] = state ? (float)TCQ_NEVER : 0;
    for (int64_t t = 0; t < steps; t++) {
        float u[TCQ_LANES] = {0};
        tcq_choice choice;
        for (int lane = 0; lane < TCQ_LANES && t * TCQ_LANES + lane < n; lane++) {
            const float all = x[t * TCQ_LANES + lane] * inverse;
            const float low = all < -far ? -far : all;
            u[lane] = low > far ? far : low;
        }
        tcq_choose(&choice, u, rates);
        for (int d = 0; d < TCQ_SUBSETS; d++)
            for (int lane = 0; lane < TCQ_LANES; lane++)
                best[(t * TCQ_SUBSETS + d) * TCQ_LANES + lane] = (int8_t)choice.level[d][lane];
        tcq_step(cost, &choice, ways + t * TCQ_LANES);
    }
    for (int lane = 0; lane < TCQ_LANES; lane++) {
        int state = 0;
        for (int other = 1; other < EFL_TCQ_STATES; other++)
            if (cost[other][lane] < cost[state][lane]) state = other;
        for (int64_t t = steps - 1; t >= 0; t--) {
            const int from = efl_tcq_from(state, ways[t * TCQ_LANES + lane] >> state & 1);
            const int8_t level = best[(t * TCQ_SUBSETS + efl_tcq_subset(from, state)) * TCQ_LANES + lane];
            if (t * TCQ_LANES + lane < n) levels[t * TCQ_LANES + lane] = level;
            state = from;
        }
    }
}

#pragma GCC pop_options
