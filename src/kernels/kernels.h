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

#include "../codecs/codecs.h"

#include <stdint.h>

/* What one step of a local optimizer does to a weight; see efl_fit for the meaning. */
typedef struct {
    float lr, momentum, weight_decay, prox_mu;
    float grad_scale; /* the factor of clipping, 1 without */
    int nesterov, adam;
    float bias1, bias2; /* Adam's corrections in this step: 1 - beta1^t, 1 - beta2^t */
} efl_sgd;

/* c[m] = sum over k of a[m, k] b[k], where each c[m] and b[k] is a row of n floats, and m and k are triples of indices,
 * outer to inner. With dot products of triples,
 *     a[m, k] is at a + m . a_m + k . a_k,    b[k] at b + k . b_k,    c[m] at c + m . c_m
 * (strides in floats, may be negative). It is a convolution if m runs over pixels and k over taps, and the gradient of
 * its weights if m runs over taps and k over pixels. */
typedef struct {
    const float *a, *b;
    const float *bias; /* (n) to start from, or NULL */
    float *c;
    int accumulate; /* start from c instead */
    int64_t n, m[3], k[3]; /* all > 0 */
    int64_t a_m[3], a_k[3], b_k[3], c_m[3];
} efl_product;

/* A window that slides over an image: (rows, columns) each; x and y are (rows, columns, channels). */
typedef struct {
    int64_t x[3], y[3];
    int64_t kernel[2], stride[2], dilation[2];
    int64_t before[2], after[2]; /* padding */
} efl_window;
/* Functions of one number, with parameters p and q: LEAKY_RELU and ELU alpha; CLIP min, max; HARD_SIGMOID alpha, beta;
 * POW the exponent. */
typedef enum {
    EFL_POINT_LEAKY_RELU,
    EFL_POINT_CLIP,
    EFL_POINT_HARD_SIGMOID,
    EFL_POINT_HARD_SWISH,
    EFL_POINT_GELU,
    EFL_POINT_GELU_TANH,
    EFL_POINT_ERF,
    EFL_POINT_SQRT,
    EFL_POINT_EXP,
    EFL_POINT_LOG,
    EFL_POINT_POW,
    EFL_POINT_ABS,
    EFL_POINT_ELU,
    EFL_POINT_SOFTPLUS,
} efl_pointwise;

typedef enum { EFL_ADD, EFL_SUB, EFL_MUL, EFL_DIV } efl_arithmetic;

typedef struct {
    const char *isa;
    uint32_t (*crc32c)(uint32_t state, const uint8_t *data, int64_t size);

    /* c(M,N) = a(M,K) b(K,N), + c if accumulate, else + bias(N) if not NULL. a[i][p] is a[i * a_row + p * a_col],
     * so a transposed a costs nothing; b is dense. */
    void (*gemm)(float *c, const float *a, int64_t a_row, int64_t a_col, const float *b, const float *bias, int64_t m,
                 int64_t n, int64_t k, int accumulate);
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

    /* dx from dy and v, which is the forward's y where ops/pointwise.c says so, else x; dx may be dy. */
    void (*pointwise)(efl_pointwise kind, float *y, const float *x, float p, float q, int64_t n);
    void (*pointwise_backward)(efl_pointwise kind, float *dx, const float *dy, const float *v, float p, float q,
                               int64_t n);
    /* y(N) = x(N) / (1 - ratio), or 0 for a share `ratio` of the elements, which key decides; y may be x. */
    void (*dropout)(float *y, const float *x, uint64_t key, float ratio, int64_t n);

    /* y(M,N) = a op b; a[i][j] is a[i * a_row + j * a_col], a_col is 0 or 1, b alike. y may be a or b. */
    void (*arithmetic)(efl_arithmetic op, float *y, const float *a, int64_t a_row, int64_t a_col, const float *b,
                       int64_t b_row, int64_t b_col, int64_t m, int64_t n);
    /* y[i * y_row + j * y_col] = x[i * x_row + j * x_col], i < M, j < N */
    void (*copy_strided)(float *y, int64_t y_row, int64_t y_col, const float *x, int64_t x_row, int64_t x_col,
                         int64_t m, int64_t n);
    float (*sum)(const float *x, int64_t n);

    /* Of each column of x(M,N): both(2,N) += sum of d, sum of d d, where d = x - shift(N). */
    void (*moments)(float *both, const float *x, const float *shift, int64_t m, int64_t n);
    /* both(2,N) += sum of dy, sum of dy d */
    void (*moments_backward)(float *both, const float *dy, const float *x, const float *shift, int64_t m, int64_t n);
    /* y = a x + b */
    void (*scale_rows)(float *y, const float *x, const float *a, const float *b, int64_t m, int64_t n);
    /* dx = a dy + b d + c with a, b, c the rows of abc(3,N) */
    void (*mix_rows)(float *dx, const float *dy, const float *x, const float *shift, const float *abc, int64_t m,
                     int64_t n);
    /* Each row of x(M,N) to mean 0, variance 1, times gamma(N), plus beta(N); stats(M,2) = its mean, 1 / deviation. */
    void (*layer_norm)(float *y, float *stats, const float *x, const float *gamma, const float *beta, float epsilon,
                       int64_t m, int64_t n);
    /* dx (or NULL), dgamma and dbeta (to add to, or NULL) from dy */
    void (*layer_norm_backward)(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x,
                                const float *stats, const float *gamma, int64_t m, int64_t n);

    double (*sum_squares)(const float *x, int64_t n);
    /* w, v (NULL without momentum), s (Adam's second moment, else NULL), g the gradient, w0 the round's start: (N) */
    void (*sgd_step)(float *w, float *v, float *s, const float *g, const float *w0, const efl_sgd *sgd, int64_t n);
    /* As gemm with g(M,N) = a(M,K) b(K,N) for a gradient that never exists as a whole: sgd_step on w(M,N). */
    void (*gemm_update)(float *w, float *v, const float *w0, const float *a, int64_t a_row, int64_t a_col,
                        const float *b, const efl_sgd *sgd, int64_t m, int64_t n, int64_t k);

    void (*product)(const efl_product *product); /* a[m, k] is one float */
    /* a[m, k] is a row of n floats too, multiplied by b[k] channel by channel. */
    void (*product_of_channels)(const efl_product *product);
    /* y(count, cols, rows) = x(count, rows, cols) */
    void (*transpose)(float *y, const float *x, int64_t count, int64_t rows, int64_t cols);
    /* One sample. dx is written, not added to. include_pad: the mean counts padding as zeros. */
    void (*maxpool)(float *y, const float *x, const efl_window *window);
    void (*maxpool_backward)(float *dx, const float *dy, const float *x, const efl_window *window);
    void (*avgpool)(float *y, const float *x, const efl_window *window, int include_pad);
    void (*avgpool_backward)(float *dx, const float *dy, const efl_window *window, int include_pad);
    /* One step of a recurrent op, B samples of H units; states, kept, dkept and their gradients are (B,H).
     * LSTM, gates (B,4H) in the order i o f c~: the sums of x's part in, those of h's in recurrent, (B,4H) or, if
     * split, (4,B,H); activated out. c = f c_before + i c~; h = o tanh(c). */
    void (*lstm_forward)(float *gates, const float *recurrent, int split, float *c, const float *c_before, float *h,
                         int64_t batch, int64_t hidden);
    /* gates: activated in, gradients of the sums out; dc: of c in, of c_before out; c: in, h out. */
    void (*lstm_backward)(float *gates, float *c, const float *c_before, const float *dh, float *dc, int64_t batch,
                          int64_t hidden);
    /* GRU, gates (B,3H) in the order z r h~. First z and r from the sums of x's part (gates) and h's (recurrent).
     * reset_after: kept = h's part of h~, and gates' h~ += r kept; else kept = r h. */
    void (*gru_gates)(float *gates, const float *recurrent, const float *h, float *kept, int reset_after, int64_t batch,
                      int64_t hidden);
    /* Then h~ = tanh(its sum + recurrent if not NULL); h = (1 - z) h~ + z h_before. */
    void (*gru_blend)(float *gates, const float *recurrent, const float *h_before, float *h, int64_t batch,
                      int64_t hidden);
    /* gates: z r h~ in, dz r dh~ of the sums out; dh: of h in, z's share of h_before's out. */
    void (*gru_blend_backward)(float *gates, const float *h_before, float *dh, int64_t batch, int64_t hidden);
    /* gates: r in, dr out. dkept NULL (reset_after): kept becomes its gradient; else dh += r dkept. */
    void (*gru_gates_backward)(float *gates, float *kept, const float *dkept, const float *h_before, float *dh,
                               int64_t batch, int64_t hidden);

    /* For codecs/; where a name is that of a function in codecs.h, so is the meaning. payload(4N): little-endian
     * float32, N a multiple of 64. peak_f32 as efl_peak_f32; add_f32 as efl_accumulate_f32, for |x| 2^30 below 2^51. */
    float (*peak_f32)(const uint8_t *payload, int64_t n);
    void (*add_f32)(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n);
    void (*quantize)(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                     int64_t n);
    void (*add_symbols)(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n);
    void (*take_symbols)(float *y, const uint8_t *symbols, const float *table, int64_t n);
    void (*count_symbols)(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n);
    void (*coin_quantize)(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n);
    void (*coin_contexts)(uint8_t *contexts, int tables, uint64_t seed, int64_t start, int64_t n);
    void (*energy_sums)(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C);
    void (*energy_contexts)(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups,
                            int64_t C, int64_t start, int64_t n);

    /* The long middle of a stream of 32 lanes (codecs/rans.h); NULL where vectors do not pay. Decoding stops when fewer
     * than 64 bytes are left, and returns how many symbols it decoded, a multiple of 32. slots: 4096 for each context.
     */
    int64_t (*rans_decode)(uint32_t *state, const uint8_t **next, const uint8_t *end, uint8_t *symbols,
                           const uint8_t *contexts, int64_t n, const uint32_t *slots);
    /* n is a multiple of 32. The spans and reciprocals of a context lie `stride` words after those of the context
     * before. May write to the 32 bytes before the stream. */
    uint8_t *(*rans_encode)(uint32_t *state, uint8_t *end, const uint8_t *symbols, const uint8_t *contexts, int64_t n,
                            const uint32_t *spans, const uint32_t *reciprocals, int64_t stride);
} efl_kernel_table;

extern const efl_kernel_table *efl_kernels;

#endif
