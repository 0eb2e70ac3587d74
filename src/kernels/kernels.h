/* kernels.h: the table of inner loops, one table per instruction set.
 *
 * Design:
 *   a) kernels.c includes every kernel source as static code and is compiled once per instruction set, with
 *      flags on that object alone; all that leaves an object is its one table.
 *   b) Nothing inline with external linkage is shared between the objects: the linker would keep one copy,
 *      maybe the AVX-512 one, and a Raspberry Pi's baseline call would die of SIGILL.
 *   c) `efl_kernels` points at the table that efl_isa_select chose, once, at import.
 *
 * All matrices are row-major float32, unpacked, of any alignment. No kernel allocates.
 */
#ifndef EFL_KERNELS_H
#define EFL_KERNELS_H

#include <stdint.h>

/* What one step of a local optimizer does to a weight; see efl_fit for the meaning. */
typedef struct {
    float lr, momentum, weight_decay, prox_mu;
    float grad_scale; /* 1, or what clipping shrinks the gradient by */
    int nesterov, adam;
    float bias1, bias2; /* Adam's corrections in this step: 1 - beta1^t, 1 - beta2^t */
} efl_sgd;

typedef struct {
    const char *isa;
    uint32_t (*crc32c)(uint32_t state, const uint8_t *data, int64_t size);

    /* c(M,N) = a(M,K) b(K,N), + c if accumulate, else + bias(N) if not NULL. a[i][p] is a[i * a_row + p * a_col],
     * so a transposed a costs nothing; b is dense. */
    void (*gemm)(float *c, const float *a, int64_t a_row, int64_t a_col, const float *b, const float *bias,
                 int64_t m, int64_t n, int64_t k, int accumulate);
    /* c(M,N) = a(M,K) b(N,K)^T */
    void (*gemm_nt)(float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k);
    void (*add_rows)(float *sum, const float *a, int64_t m, int64_t n); /* sum(N) += the rows of a(M,N) */
    void (*add)(float *y, const float *x, int64_t n);                   /* y += x */

    void (*relu)(float *y, const float *x, int64_t n);
    void (*tanh)(float *y, const float *x, int64_t n);
    void (*sigmoid)(float *y, const float *x, int64_t n);
    /* dx from dy and the forward's output y; dx may be dy. */
    void (*relu_backward)(float *dx, const float *dy, const float *y, int64_t n);
    void (*tanh_backward)(float *dx, const float *dy, const float *y, int64_t n);
    void (*sigmoid_backward)(float *dx, const float *dy, const float *y, int64_t n);
    /* y(N) = softmax of x(N); returns log sum exp x. y may be x. */
    float (*softmax)(float *y, const float *x, int64_t n);

    double (*sum_squares)(const float *x, int64_t n);
    /* w, v (NULL without momentum), s (Adam's second moment, else NULL), g the gradient, w0 the round's start: (N) */
    void (*sgd_step)(float *w, float *v, float *s, const float *g, const float *w0, const efl_sgd *sgd, int64_t n);
    /* As gemm with g(M,N) = a(M,K) b(K,N) for a gradient that never exists as a whole: sgd_step on w(M,N). */
    void (*gemm_update)(float *w, float *v, const float *w0, const float *a, int64_t a_row, int64_t a_col,
                        const float *b, const efl_sgd *sgd, int64_t m, int64_t n, int64_t k);
} efl_kernel_table;

extern const efl_kernel_table *efl_kernels;

#endif
