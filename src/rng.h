/* rng.h: SplitMix64 (Steele, Lea, Flood 2014), for shuffling and nothing that must be secret. */
#ifndef EFL_RNG_H
#define EFL_RNG_H

#include <stdint.h>

typedef struct {
    uint64_t state;
} efl_rng;

uint64_t efl_rng_next(efl_rng *rng);
/* Uniform in 0..bound-1, without bias (Lemire 2019, arXiv:1805.10941). 0 < bound <= 2^32 */
uint64_t efl_rng_below(efl_rng *rng, uint64_t bound);

#endif
