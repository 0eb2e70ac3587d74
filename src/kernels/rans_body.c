/* rans_body.c: a stream of `vectors` times RANS_VL lanes; included by rans.c for each width of vectors.
 *
 * The states that need a word take the next ones in the order of their lanes: a vector of words is expanded (decoder)
 * or compressed (encoder) by the mask of those states.
 *
 * Most symbols of an update are 0. Symbol 0 begins at slot 0, so a step whose lanes all code 0, and need no word, is
 * one product: x -> freq (x >> 12) + (x & 4095). No table is read for it but run->starts, which lies in registers. A
 * table in which 0 has all 4096 slots leaves the state as it is: such symbols are passed over, eight at a time.
 */

/* Whether the next symbols are certain to be 0: contexts 0, whose table has no other symbol. */
INLINE int RANS(certain)(const efl_rans_run *run, int64_t i, int vectors) {
    if (run->starts == NULL || run->starts[0][0] != 4096) return 0;
    if (run->contexts == NULL) return 1;
    uint64_t any = 0, some;
    for (int at = 0; at < vectors * RANS_VL; at += 8) memcpy(&some, run->contexts + i + at, 8), any |= some;
    return any == 0;
}

INLINE RANS(vector) RANS(context)(const efl_rans_run *run, int64_t i) {
    return run->contexts ? RANS(bytes)(run->contexts + i) : RANS(splat)(0);
}

/* Whether the next symbols are all 0 and need no word; then x is the states after them. */
INLINE int RANS(take_zeros)(const efl_rans_run *run, RANS(vector) * x, int64_t i, int vectors) {
    RANS(vector) after[EFL_RANS_MAX_LANES / RANS_VL];
    int zeros = 1;
    for (int v = 0; v < vectors; v++) {
        const RANS(vector) freq = RANS(lookup)(run->starts[0], RANS(context)(run, i + v * RANS_VL));
        const RANS(vector) offset = RANS(and)(x[v], RANS(splat)(0xFFF));
        after[v] = RANS(add)(RANS(mullo)(freq, RANS(srli)(x[v], 12)), offset);
        zeros &= RANS(all_below)(offset, freq) & !RANS(any_zero)(RANS(srli)(after[v], 16));
    }
    if (!zeros) return 0;
    for (int v = 0; v < vectors; v++) x[v] = after[v];
    return 1;
}

/* Whether the next symbols are all below EFL_RANS_SMALL; then slot is those, and x the states before they take words.
 * Comparing with where symbols begin is faster than to gather from tables. */
INLINE int RANS(take_small)(const efl_rans_run *run, RANS(vector) * x, RANS(vector) * symbol, int64_t i, int vectors) {
    RANS(vector) after[EFL_RANS_MAX_LANES / RANS_VL];
    int small = 1;
    for (int v = 0; v < vectors; v++) {
        const RANS(vector) context = RANS(context)(run, i + v * RANS_VL), at = RANS(and)(x[v], RANS(splat)(0xFFF));
        RANS(vector) stop = RANS(lookup)(run->starts[0], context), start = RANS(splat)(0);
        small &= RANS(all_below)(at, RANS(lookup)(run->starts[EFL_RANS_SMALL - 1], context));
        symbol[v] = start;
        for (int k = 1; k < EFL_RANS_SMALL; k++) {
            const RANS(mask) beyond = RANS(not_below)(at, stop);
            const RANS(vector) next = RANS(lookup)(run->starts[k], context);
            symbol[v] = RANS(choose)(beyond, RANS(splat)((uint32_t)k), symbol[v]);
            start = RANS(choose)(beyond, stop, start);
            stop = RANS(choose)(beyond, next, stop);
        }
        const RANS(vector) high = RANS(mullo)(RANS(sub)(stop, start), RANS(srli)(x[v], 12));
        after[v] = RANS(add)(high, RANS(sub)(at, start));
    }
    if (!small) return 0;
    for (int v = 0; v < vectors; v++) x[v] = after[v];
    return 1;
}

/* Whether all symbols from i on are 0 and need no word; then they are written and x is the states after them. */
INLINE int RANS(pass_zeros)(const efl_rans_run *run, RANS(vector) * x, int64_t i, uint8_t *symbols, int vectors) {
    if (!RANS(certain)(run, i, vectors) && !(run->starts && RANS(take_zeros)(run, x, i, vectors))) return 0;
    memset(symbols + i, 0, (size_t)(vectors * RANS_VL));
    return 1;
}

/* One vector's slots, by table; x is the states before they take words. */
INLINE RANS(vector) RANS(take_any)(RANS(vector) * x, const uint32_t *slots, RANS(vector) context) {
    const RANS(vector) index = RANS(add)(RANS(and)(*x, RANS(splat)(0xFFF)), RANS(slli)(context, 12));
    const RANS(vector) slot = RANS(gather)(slots, index);
    const RANS(vector) freq = RANS(add)(RANS(srli)(slot, 20), RANS(splat)(1));
    const RANS(vector) offset = RANS(and)(RANS(srli)(slot, 8), RANS(splat)(0xFFF));
    *x = RANS(add)(RANS(mullo)(freq, RANS(srli)(*x, 12)), offset);
    return slot;
}

INLINE int64_t RANS(decode)(const efl_rans_run *run, uint32_t *state, const uint8_t **next, const uint8_t *end,
                            uint8_t *symbols, const uint32_t *slots, int vectors) {
    const int lanes = vectors * RANS_VL, together = RANS_TOGETHER(vectors);
    RANS(vector) x[EFL_RANS_MAX_LANES / RANS_VL];
    const uint8_t *word = *next;
    int64_t i = 0;
    for (int v = 0; v < vectors; v++) memcpy(&x[v], state + v * RANS_VL, sizeof x[v]);
    for (; i + lanes <= run->n; i += lanes) {
        const int enough = end - word >= 2 * lanes;
        if ((together == vectors || !enough) && RANS(pass_zeros)(run, x, i, symbols, vectors)) continue;
        if (!enough) break;
        for (int first = 0; first < vectors; first += together) {
            RANS(vector) slot[EFL_RANS_MAX_LANES / RANS_VL];
            const int64_t at = i + first * RANS_VL;
            if (together < vectors && RANS(pass_zeros)(run, x + first, at, symbols, together)) continue;
            if (!RANS_COMPARES || !run->starts || !RANS(take_small)(run, x + first, slot, at, together))
                for (int v = 0; v < together; v++)
                    slot[v] = RANS(take_any)(&x[first + v], slots, RANS(context)(run, at + v * RANS_VL));
            for (int v = 0; v < together; v++) {
                word += 2 * RANS(refill)(&x[first + v], word);
                RANS(store_bytes)(symbols + at + v * RANS_VL, RANS(and)(slot[v], RANS(splat)(0xFF)));
            }
        }
    }
    for (int v = 0; v < vectors; v++) memcpy(state + v * RANS_VL, &x[v], sizeof x[v]);
    *next = word;
    return i;
}

/* x -> (x / freq) 4096 + x % freq + start. The reciprocal is rounded down: the quotient is right or one too small. */
INLINE RANS(vector) RANS(grow)(RANS(vector) x, RANS(vector) freq, RANS(vector) start, RANS(vector) reciprocal) {
    const RANS(vector) q = RANS(high_product)(x, reciprocal);
    const RANS(vector) rest = RANS(sub)(x, RANS(mullo)(q, freq));
    const RANS(vector) grown = RANS(mullo)(RANS(correct)(q, rest, freq), RANS(sub)(RANS(splat)(4096), freq));
    return RANS(add)(RANS(add)(x, start), grown);
}

/* Whether all of these symbols are 0 and write no word; then x is the states after them. */
INLINE int RANS(give_zeros)(const efl_rans_run *run, RANS(vector) * x, const uint8_t *symbols, int64_t i, int vectors) {
    RANS(vector) freq[EFL_RANS_MAX_LANES / RANS_VL], context[EFL_RANS_MAX_LANES / RANS_VL];
    uint64_t any = 0, some;
    for (int at = 0; at < vectors * RANS_VL; at += 8) memcpy(&some, symbols + i + at, 8), any |= some;
    if (any != 0) return 0;
    if (RANS(certain)(run, i, vectors)) return 1;
    int stays = 1;
    for (int v = 0; v < vectors; v++) {
        context[v] = RANS(context)(run, i + v * RANS_VL);
        freq[v] = RANS(lookup)(run->starts[0], context[v]);
        stays &= RANS(all_below)(RANS(srli)(x[v], 20), freq[v]);
    }
    if (!stays) return 0;
    for (int v = 0; v < vectors; v++)
        x[v] = RANS(grow)(x[v], freq[v], RANS(splat)(0), RANS(lookup)(run->reciprocals, context[v]));
    return 1;
}

/* NULL if a symbol has no frequency. */
INLINE uint8_t *RANS(encode)(const efl_rans_run *run, uint32_t *state, uint8_t *end, const uint8_t *symbols,
                             const uint32_t *spans, const uint32_t *reciprocals, int64_t stride, int vectors) {
    const int lanes = vectors * RANS_VL, together = RANS_TOGETHER(vectors);
    RANS(vector) x[EFL_RANS_MAX_LANES / RANS_VL];
    int missing = 0;
    for (int v = 0; v < vectors; v++) memcpy(&x[v], state + v * RANS_VL, sizeof x[v]);
    for (int64_t i = run->n - lanes; i >= 0; i -= lanes) {
        if (together == vectors && run->starts && RANS(give_zeros)(run, x, symbols, i, vectors)) continue;
        for (int v = vectors - 1; v >= 0; v--) {
            const int64_t at = i + v * RANS_VL;
            if (together < vectors && run->starts && RANS(give_zeros)(run, x + v, symbols, at, 1)) continue;
            const RANS(vector) place = RANS(mullo)(RANS(context)(run, at), RANS(splat)((uint32_t)stride));
            const RANS(vector) index = RANS(add)(RANS(bytes)(symbols + at), place);
            const RANS(vector) span = RANS(gather)(spans, index), reciprocal = RANS(gather)(reciprocals, index);
            const RANS(vector) freq = RANS(and)(span, RANS(splat)(0xFFFF));
            missing |= RANS(any_zero)(freq);
            end -= 2 * RANS(spill)(&x[v], freq, end);
            x[v] = RANS(grow)(x[v], freq, RANS(srli)(span, 16), reciprocal);
        }
    }
    for (int v = 0; v < vectors; v++) memcpy(state + v * RANS_VL, &x[v], sizeof x[v]);
    return missing ? NULL : end;
}
