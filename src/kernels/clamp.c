/* clamp.c: the relu or clip that follows a node, as a part of the node's own passes. Not here: those by themselves. */

INLINE vf limited(vf y, efl_clamp clamp) {
    y = choose(y < clamp.low, splat(clamp.low), y);
    return choose(y > clamp.high, splat(clamp.high), y);
}

/* dy where no limit held y */
INLINE vf passed(vf dy, vf y, efl_clamp clamp) {
    return choose((y > clamp.low) & (y < clamp.high), dy, splat(0));
}

static void add_limited(float *y, const float *a, const float *b, const efl_clamp *given, int64_t n) {
    const efl_clamp clamp = *given;
    FOR_VECTORS(i, n) store_upto(y + i, limited(load_upto(a + i, n - i) + load_upto(b + i, n - i), clamp), n - i);
}

static void add_limited_backward(float *da, float *db, const float *dy, const float *y, const efl_clamp *given,
                                 int64_t n) {
    const efl_clamp clamp = *given;
    FOR_VECTORS(i, n) {
        const vf d = passed(load_upto(dy + i, n - i), load_upto(y + i, n - i), clamp);
        store_upto(da + i, d, n - i);
        if (db != NULL) store_upto(db + i, d, n - i);
    }
}
