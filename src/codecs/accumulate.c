/* accumulate.c: adds updates to int64 fixed point with EFL_FRACTION_BITS fractional bits.
 *
 * Integer sums are associative, so the order of the updates, their sharding and any tree of partial sums give the same
 * bits. Compiled with -ffp-contract=off: these bits are a contract between machines.
 */
#include "../kernels/kernels.h"
#include "codecs.h"

#include <math.h>
#include <string.h>

enum { AT_ONCE = 4096, MULTIPLE = 64 }; /* floats; so many stay in the nearest cache between peak and sum */

static const double SCALE = (double)(1ll << EFL_FRACTION_BITS);

static float load_f32(const uint8_t *payload, int64_t i) {
    const uint8_t *p = payload + 4 * i;
    const uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* value * SCALE, rounded, times weight. Right if the caller has checked that the sum has room, and defined for every
 * input: the product wraps, and a value that does not fit into an int64 counts as 0. */
static int64_t weighted(float value, int64_t weight) {
    const double fixed = (double)value * SCALE;
    const int64_t integer = fabs(fixed) < 0x1p63 ? (int64_t)llrint(fixed) : 0;
    return (int64_t)((uint64_t)integer * (uint64_t)weight);
}

static float larger(float peak, float value) {
    const float size = fabsf(value);
    return isfinite(size) ? fmaxf(peak, size) : INFINITY;
}

static void add_large_f32(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        acc[i] = (int64_t)((uint64_t)acc[i] + (uint64_t)weighted(load_f32(payload, i), weight));
}

void efl_accumulate_f32(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n) {
    for (int64_t done = 0; done < n; done += AT_ONCE) {
        const int64_t size = n - done < AT_ONCE ? n - done : AT_ONCE;
        const uint8_t *some = payload + 4 * done;
        const int64_t whole = size / MULTIPLE * MULTIPLE;
        const int64_t fast = efl_kernels->peak_f32(some, whole) < 0x1p21f ? whole : 0;
        efl_kernels->add_f32(acc + done, some, weight, fast);
        add_large_f32(acc + done + fast, some + 4 * fast, weight, size - fast);
    }
}

float efl_peak_f32(const uint8_t *payload, int64_t n) {
    const int64_t whole = n / MULTIPLE * MULTIPLE;
    float peak = efl_kernels->peak_f32(payload, whole);
    for (int64_t i = whole; i < n; i++) peak = larger(peak, load_f32(payload, i));
    return peak;
}

float efl_fixed(int64_t *fixed, const float *x, int64_t weight, int64_t n) {
    float peak = 0;
    for (int64_t i = 0; i < n; i++) {
        fixed[i] = weighted(x[i], weight);
        peak = larger(peak, x[i]);
    }
    return peak;
}

double efl_rms(const float *x, int64_t n) {
    double sums[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += (double)x[i + j] * (double)x[i + j];
    for (; i < n; i++) sum += (double)x[i] * (double)x[i];
    for (int j = 0; j < 8; j++) sum += sums[j];
    return n ? sqrt(sum / (double)n) : 0;
}

/* The sum of a single update on the accumulator's grid is that update, to the bit. A float32 of 2^-6 or more lies on
 * the grid already. */
void efl_delta(float *delta, const float *local, const float *global, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float difference = local[i] - global[i];
        const float snapped = (float)(rint((double)difference * SCALE) / SCALE);
        delta[i] = fabsf(difference) < 0x1p-6f ? snapped : difference;
    }
}
