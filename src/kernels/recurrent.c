/* recurrent.c: what an LSTM or GRU step does between its matrix products.
 *
 * A step's gates are rows (B, 4H) or (B, 3H), one block of H columns a gate; states are (B, H). The loops go over
 * vectors of units, so that a unit's gates are in registers together.
 */

/* Every vector of units of every sample: gates at `g`, states at `at`, `left` units to go. */
#define FOR_UNITS(count)                                                                        \
    for (int64_t b = 0; b < batch; b++)                                                         \
        for (int64_t j = 0, g = b * (count) * hidden, at = b * hidden, left = hidden; left > 0; \
             j += VL, g += VL, at += VL, left -= VL)

INLINE vf sum_of(const float *a, const float *b, int64_t n) {
    return load_upto(a, n) + load_upto(b, n);
}

static void lstm_forward(float *gates, const float *sums, float *c, const float *c_before, float *h, int64_t batch,
                         int64_t hidden) {
    FOR_UNITS(4) {
        const vf i = sigmoid_of(sum_of(gates + g, sums + g, left));
        const vf o = sigmoid_of(sum_of(gates + g + hidden, sums + g + hidden, left));
        const vf f = sigmoid_of(sum_of(gates + g + 2 * hidden, sums + g + 2 * hidden, left));
        const vf candidate = tanh_of(sum_of(gates + g + 3 * hidden, sums + g + 3 * hidden, left));
        const vf cell = f * load_upto(c_before + at, left) + i * candidate;
        store_upto(gates + g, i, left);
        store_upto(gates + g + hidden, o, left);
        store_upto(gates + g + 2 * hidden, f, left);
        store_upto(gates + g + 3 * hidden, candidate, left);
        store_upto(c + at, cell, left);
        store_upto(h + at, o * tanh_of(cell), left);
    }
}

static void lstm_backward(float *gates, float *c, const float *c_before, const float *dh, float *dc, int64_t batch,
                          int64_t hidden) {
    FOR_UNITS(4) {
        const vf i = load_upto(gates + g, left), o = load_upto(gates + g + hidden, left);
        const vf f = load_upto(gates + g + 2 * hidden, left), candidate = load_upto(gates + g + 3 * hidden, left);
        const vf out = tanh_of(load_upto(c + at, left)), up = load_upto(dh + at, left);
        const vf cell = load_upto(dc + at, left) + up * o * (1.0f - out * out);
        store_upto(gates + g, cell * candidate * i * (1.0f - i), left);
        store_upto(gates + g + hidden, up * out * o * (1.0f - o), left);
        store_upto(gates + g + 2 * hidden, cell * load_upto(c_before + at, left) * f * (1.0f - f), left);
        store_upto(gates + g + 3 * hidden, cell * i * (1.0f - candidate * candidate), left);
        store_upto(dc + at, cell * f, left);
        store_upto(c + at, o * out, left);
    }
}

static void gru_gates(float *gates, const float *recurrent, const float *h, float *kept, int reset_after, int64_t batch,
                      int64_t hidden) {
    FOR_UNITS(3) {
        const vf z = sigmoid_of(sum_of(gates + g, recurrent + g, left));
        const vf r = sigmoid_of(sum_of(gates + g + hidden, recurrent + g + hidden, left));
        const float *candidate = reset_after ? recurrent + g + 2 * hidden : h + at;
        const vf keep = load_upto(candidate, left), reset = r * keep;
        store_upto(gates + g, z, left);
        store_upto(gates + g + hidden, r, left);
        if (reset_after) {
            store_upto(kept + at, keep, left);
            store_upto(gates + g + 2 * hidden, load_upto(gates + g + 2 * hidden, left) + reset, left);
        } else {
            store_upto(kept + at, reset, left);
        }
    }
}

static void gru_blend(float *gates, const float *recurrent, const float *h_before, float *h, int64_t batch,
                      int64_t hidden) {
    FOR_UNITS(3) {
        const vf z = load_upto(gates + g, left), before = load_upto(h_before + at, left);
        vf sum = load_upto(gates + g + 2 * hidden, left);
        if (recurrent != NULL) sum += load_upto(recurrent + at, left);
        const vf candidate = tanh_of(sum);
        store_upto(gates + g + 2 * hidden, candidate, left);
        store_upto(h + at, candidate + z * (before - candidate), left);
    }
}

static void gru_blend_backward(float *gates, const float *h_before, float *dh, int64_t batch, int64_t hidden) {
    FOR_UNITS(3) {
        const vf z = load_upto(gates + g, left), candidate = load_upto(gates + g + 2 * hidden, left);
        const vf up = load_upto(dh + at, left);
        const vf dz = up * (load_upto(h_before + at, left) - candidate) * z * (1.0f - z);
        store_upto(gates + g, dz, left);
        store_upto(gates + g + 2 * hidden, up * (1.0f - z) * (1.0f - candidate * candidate), left);
        store_upto(dh + at, up * z, left);
    }
}

static void gru_gates_backward(float *gates, float *kept, const float *dkept, const float *h_before, float *dh,
                               int64_t batch, int64_t hidden) {
    FOR_UNITS(3) {
        const vf r = load_upto(gates + g + hidden, left);
        vf dr;
        if (dkept == NULL) {
            const vf candidate = load_upto(gates + g + 2 * hidden, left);
            dr = candidate * load_upto(kept + at, left);
            store_upto(kept + at, candidate * r, left);
        } else {
            const vf up = load_upto(dkept + at, left);
            dr = up * load_upto(h_before + at, left);
            store_upto(dh + at, load_upto(dh + at, left) + up * r, left);
        }
        store_upto(gates + g + hidden, dr * r * (1.0f - r), left);
    }
}
