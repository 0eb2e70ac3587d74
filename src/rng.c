/* rng.c: SplitMix64 and the shuffle of an epoch. */
#include "rng.h"
#include "efl.h"

uint64_t efl_rng_next(efl_rng *rng) {
    uint64_t z = rng->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t efl_rng_below(efl_rng *rng, uint64_t bound) {
    const uint64_t biased = ((uint64_t)1 << 32) % bound;
    for (;;) {
        const uint64_t product = (efl_rng_next(rng) >> 32) * bound;
        if ((product & 0xFFFFFFFFu) >= biased) return product >> 32;
    }
}

/* Fisher and Yates. The epoch is hashed into the seed, so that (seed, epoch + 1) isn't (seed + 1, epoch). */
void efl_permutation(uint32_t *order, int64_t n, uint64_t seed, uint64_t epoch) {
    efl_rng rng = {epoch};
    rng.state = seed ^ efl_rng_next(&rng);
    for (int64_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)efl_rng_below(&rng, (uint64_t)i + 1);
        const uint32_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}
