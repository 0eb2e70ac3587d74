/* fixed.c: float32 as they come in a payload, little-endian at any address, into fixed point. Included by kernels.c.
 *
 * These bits are a contract between machines; codecs/accumulate.c has the plain version.
 */
static uint32_t payload_bits(const uint8_t *payload, int64_t i) {
    const uint8_t *p = payload + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Without their sign, floats are in the order of their bits, infinity and NaN last. */
static float peak_f32(const uint8_t *payload, int64_t n) {
    uint32_t most = 0;
    n &= ~(int64_t)63; /* as it is: the compiler needs no loops for a rest */
    for (int64_t i = 0; i < n; i++) {
        const uint32_t size = payload_bits(payload, i) & 0x7fffffffu;
        most = size > most ? size : most;
    }
    float peak;
    memcpy(&peak, &most, 4);
    return most < 0x7f800000u ? peak : INFINITY;
}

/* Adding 1.5 2^52 leaves a double's integer part, rounded to even, in its low bits: no llrint, so it runs in vectors.
 * The product with 2^30 is exact, fused or not. */
static void add_f32(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n) {
    const double shift = 0x1.8p52;
    int64_t shift_bits, bits;
    memcpy(&shift_bits, &shift, 8);
    n &= ~(int64_t)63;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t word = payload_bits(payload, i);
        float value;
        memcpy(&value, &word, 4);
        const double fixed = (double)value * 0x1p30 + shift;
        memcpy(&bits, &fixed, 8);
        acc[i] = (int64_t)((uint64_t)acc[i] + (uint64_t)(bits - shift_bits) * (uint64_t)weight);
    }
}
