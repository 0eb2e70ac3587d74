/* ring.h: vectors of m-bit numbers, 2 <= m <= 32, and the rounding that makes them: what masked rounds add up.
 *
 * Number i has the bits i m to i m + m - 1 of the packed bytes; bit j is bit j % 8 of byte j / 8. Plain C: its speed is
 * that of memory, and every machine makes the same bits.
 */
#ifndef EFL_RING_H
#define EFL_RING_H

#include <stdint.h>

/* The bytes of n numbers of m bits. */
int64_t efl_ring_bytes(int64_t n, int m);
/* data(efl_ring_bytes(n, m)): the lowest m bits of each x(N), and zeros after the last. */
void efl_ring_pack(uint8_t *data, const uint32_t *x, int m, int64_t n);
/* acc(N) += the numbers in data(efl_ring_bytes(n, m)), modulo 2^32. 0, and nothing is added, if there are bits after
 * the last number. */
int efl_ring_add(uint32_t *acc, const uint8_t *data, int m, int64_t n);

/* Of v(N) = x scale: the sum of v^2, and that of f (1 - f), f = v - floor(v): what rounding at random adds to it.
 * Summed in one order everywhere. */
void efl_ring_measure(double *squares, double *spread, const float *x, double scale, int64_t n);
/* q(N) = floor(v) + (v - floor(v) > t), t in [0, 1) drawn from seed and coordinate, and no further from 0 than reach.
 * Returns the sum of q^2, modulo 2^64. */
uint64_t efl_ring_round(int32_t *q, const float *x, double scale, int32_t reach, uint64_t seed, int64_t n);
/* The same with v rounded toward 0. */
uint64_t efl_ring_round_down(int32_t *q, const float *x, double scale, int32_t reach, int64_t n);

/* x(N) = H x / sqrt(block) in each block of `block` numbers, a power of two that divides n. H is Sylvester's Hadamard
 * matrix: the result's own inverse. Sums and differences of float32 in one order everywhere. */
void efl_hadamard(float *x, int64_t block, int64_t n);

#endif
