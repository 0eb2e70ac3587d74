/* kernels.h: the inner loops, as one table of functions for each instruction set. Not here: what an op or a codec is.
 *
 * Design:
 *   a) kernels.c includes every kernel source as static code. It is compiled once for each instruction set, with the
 *      compiler flags of that set, and exports nothing but its table.
 *   b) The objects share no inline function with external linkage: the linker would keep one copy, maybe the one with
 *      AVX-512, and a call on a processor without AVX-512 would end in SIGILL.
 *   c) `efl_kernels` points to the table that efl_isa_select chose, once, at import.
 *   d) In the small profile the one table is known wherever it is read, so that a call of a kernel is a direct one, and
 *      the linker drops every kernel that nothing calls.
 *
 * All matrices are row-major float32 without padding, at any alignment. No kernel allocates memory.
 */
#ifndef EFL_KERNELS_H
#define EFL_KERNELS_H

#include "../codecs/codecs.h"
#include "table.h"

#include <stdint.h>

/* The settings of one step of a local optimizer; efl_fit has the formulas. */
typedef struct {
    float lr, momentum, weight_decay, prox_mu;
    float grad_scale; /* the factor of clipping; 1: no clipping */
    int nesterov, adam;
    float unbias1, unbias2; /* Adam's corrections in this step: 1 / (1 - beta1^t), 1 / (1 - beta2^t) */
} efl_sgd;

/* c[m] = sum over k of a[m, k] b[k]. Each c[m] and b[k] is a row of n floats; m and k are triples of indices, outer to
 * inner. With dot products of triples,
 *     a[m, k] is at a + m . a_m + k . a_k,    b[k] at b + k . b_k,    c[m] at c + m . c_m
 * (strides in floats, may be negative). With m over pixels and k over taps this is a convolution; with m over taps and
 * k over pixels, the gradient of its weights. */
typedef struct {
    const float *a, *b;
    const float *bias; /* (n), the start of each sum; NULL: 0 */
    float *c;
    int accumulate; /* start each sum from c instead */
    int64_t n, m[3], k[3]; /* all > 0 */
    int64_t a_m[3], a_k[3], b_k[3], c_m[3];
} efl_product;

/* A window that slides over an image. x and y are the shapes (rows, columns, channels), the others (rows, columns). */
typedef struct {
    int64_t x[3], y[3];
    int64_t kernel[2], stride[2], dilation[2];
    int64_t before[2], after[2]; /* padding */
    int64_t from[2], to[2];      /* of pooling: the outputs to make or to read, from row and column to before these */
} efl_window;

/* Functions of one number. Parameters p, q: LEAKY_RELU and ELU: alpha; CLIP: min, max; HARD_SIGMOID: alpha, beta; POW:
 * the exponent; THRESHOLD: threshold, value; SHRINK: lambda, bias. */
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
    EFL_POINT_MISH,
    EFL_POINT_THRESHOLD,
    EFL_POINT_SHRINK,
    EFL_POINT_SIN,
    EFL_POINT_COS,
} efl_pointwise;

/* What a value is limited to, by relu or clip: y = low if y < low, high if y > high; NaN passes. */
typedef struct {
    float low, high;
} efl_clamp;

/* f(x) = a x + b of each column (N), limited. */
typedef struct {
    const float *a, *b;
    efl_clamp clamp;
} efl_affine;

/* EFL_STEP: 1 where a > b, 0.5 where they are equal, else 0. */
typedef enum { EFL_ADD, EFL_SUB, EFL_MUL, EFL_DIV, EFL_MAX, EFL_MIN, EFL_STEP } efl_arithmetic;

typedef struct {
    const char *isa;
    int64_t panel; /* columns of a panel of gemm: a b(K,N) with N and ldb both so many is read fastest; divides 64 */
    /* By the processor's instruction, or NULL. On aarch64 not every processor has it: codecs/crc32c.c asks. */
    uint32_t (*crc32c)(uint32_t state, const uint8_t *data, int64_t size);

    /* c(M,N) = a(M,K) b(K,N) + c if accumulate, else + bias(N) unless that is NULL. a[i][p] is
     * a[i * a_row + p * a_col], so a may be transposed without a copy; rows of c and b are ldc and ldb floats apart. */
    void (*gemm)(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,
                 const float *bias, int64_t m, int64_t n, int64_t k, int accumulate);
    /* c(M,N) = a(M,K) b(N,K)^T */
    void (*gemm_nt)(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n, int64_t k);
    void (*add_rows)(float *sum, const float *a, int64_t m, int64_t n); /* sum(N) += the rows of a(M,N) */
    void (*add)(float *y, const float *x, int64_t n);                   /* y += x */

    void (*relu)(float *y, const float *x, int64_t n);
    void (*tanh)(float *y, const float *x, int64_t n);
    void (*sigmoid)(float *y, const float *x, int64_t n);
    /* dx from dy and y, which the forward kernel wrote; dx may be dy. */
    void (*relu_backward)(float *dx, const float *dy, const float *y, int64_t n);
    void (*tanh_backward)(float *dx, const float *dy, const float *y, int64_t n);
    void (*sigmoid_backward)(float *dx, const float *dy, const float *y, int64_t n);
    /* y(N) = softmax of x(N); returns log sum exp x, which a float of x's size would round. y may be x. */
    double (*softmax)(float *y, const float *x, int64_t n);
    /* dx = y (dy - sum(dy y)) of one row; dx may be dy. */
    void (*softmax_backward)(float *dx, const float *dy, const float *y, int64_t n);

    /* dx from dy and v: y for the functions that ops/pointwise.c lists, else x; dx may be dy. */
    void (*pointwise)(efl_pointwise kind, float *y, const float *x, float p, float q, int64_t n);
    void (*pointwise_backward)(efl_pointwise kind, float *dx, const float *dy, const float *v, float p, float q,
                               int64_t n);
    /* y(N) = x(N) / (1 - ratio), but 0 for a share `ratio` of the elements, chosen by key; y may be x. */
    void (*dropout)(float *y, const float *x, uint64_t key, float ratio, int64_t n);

    /* y(M,N) = a op b. a[i][j] is a[i * a_row + j * a_col] with a_col 0 or 1; the same for b. y may be a or b. */
    void (*arithmetic)(efl_arithmetic op, float *y, const float *a, int64_t a_row, int64_t a_col, const float *b,
                       int64_t b_row, int64_t b_col, int64_t m, int64_t n);
    /* y[i * y_row + j * y_col] = x[i * x_row + j * x_col], i < M, j < N */
    void (*copy_strided)(float *y, int64_t y_row, int64_t y_col, const float *x, int64_t x_row, int64_t x_col,
                         int64_t m, int64_t n);
    float (*sum)(const float *x, int64_t n);
    /* A bit for each element of y(N), in words of 32 from the lowest bit on: 1 where above < y < below. */
    void (*keep_bits)(uint32_t *bits, const float *y, float above, float below, int64_t n);
    /* dx = dy where the bit is 1, else 0; dx may be dy. */
    void (*bits_backward)(float *dx, const float *dy, const uint32_t *bits, int64_t n);
    /* y = a + b, limited; y may be a or b. */
    void (*add_limited)(float *y, const float *a, const float *b, const efl_clamp *clamp, int64_t n);
    /* da and db, unless that is NULL: dy, and 0 where a limit held y; da may be dy. */
    void (*add_limited_backward)(float *da, float *db, const float *dy, const float *y, const efl_clamp *clamp,
                                 int64_t n);

    /* For each column of x(M,N), with d = x - shift(N): both(2,N) += sum of d, sum of d d. */
    void (*moments)(float *both, const float *x, const float *shift, int64_t m, int64_t n);
    /* y = f(x); and where f is not NULL below, dy is y's gradient, and 0 where a limit held y. */
    void (*scale_rows)(float *y, const float *x, const efl_affine *f, int64_t m, int64_t n);
    /* both(2,N) += sum of dy, sum of dy d */
    void (*moments_backward)(float *both, const float *dy, const float *x, const float *shift, const efl_affine *f,
                             int64_t m, int64_t n);
    /* dx = a dy + b d + c with a, b, c the rows of abc(3,N) */
    void (*mix_rows)(float *dx, const float *dy, const float *x, const float *shift, const float *abc,
                     const efl_affine *f, int64_t m, int64_t n);
    /* For each row of x(M,N): y = (x - mean) / sqrt(variance + epsilon) gamma(N) + beta(N); stats(M,2) = mean and
     * 1 / sqrt(variance + epsilon). */
    void (*layer_norm)(float *y, float *stats, const float *x, const float *gamma, const float *beta, float epsilon,
                       int64_t m, int64_t n);
    /* From dy: dx = its gradient, dgamma and dbeta += theirs. Each may be NULL. */
    void (*layer_norm_backward)(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x,
                                const float *stats, const float *gamma, int64_t m, int64_t n);

    double (*sum_squares)(const float *x, int64_t n);
    int (*all_finite)(const float *x, int64_t n);
    /* All are (N): w the weights; v the momentum, or NULL; s Adam's second moment, or NULL; g the gradient; w0 the
     * weights at the round's start; c the correction, or NULL. */
    void (*sgd_step)(float *w, float *v, float *s, const float *g, const float *w0, const float *c, const efl_sgd *sgd,
                     int64_t n);
    /* sgd_step on w(M,N) with the gradient a(M,K) b(K,N), which is never stored as a whole. a as in gemm. */
    void (*gemm_update)(float *w, float *v, float *s, const float *w0, const float *c, const float *a, int64_t a_row,
                        int64_t a_col, const float *b, const efl_sgd *sgd, int64_t m, int64_t n, int64_t k);

    void (*product)(const efl_product *product); /* a[m, k] is one float */
    /* Here a[m, k] is a row of n floats too, and is multiplied by b[k] element by element. */
    void (*product_of_channels)(const efl_product *product);
    /* Winograd's transforms, for tiles `from` to before `to` of images of tiles(2) rows and columns of them. Of
     * x(n, 2 rows + 2, 2 columns + 2, wide), the first c channels, to v, of which element e(16) of all tiles is at
     * v + e apart; */
    void (*winograd_input)(float *v, int64_t apart, const float *x, const int64_t *tiles, int64_t from, int64_t to,
                           int64_t wide, int64_t c);
    /* of m, laid out likewise, to y(n, 2 rows, 2 columns, N) + bias(N), unless that is NULL; */
    void (*winograd_output)(float *y, const float *m, int64_t apart, const float *bias, const int64_t *tiles,
                            int64_t from, int64_t to, int64_t n);
    /* of w(3, 3, N) to u(16, N); turned: of its taps in reverse order. */
    void (*winograd_weights)(float *u, const float *w, int turned, int64_t n);
    /* Backward for the weights: of dy(n, 2 rows, 2 columns, N) to the gradient of m, laid out as v; */
    void (*winograd_gradient)(float *m, int64_t apart, const float *dy, const int64_t *tiles, int64_t from, int64_t to,
                              int64_t n);
    /* and of u's gradient (16, N) to N numbers of each of dw's 9 taps, which are `apart`: +=. */
    void (*winograd_weights_back)(float *dw, int64_t apart, const float *u, int64_t n);
    /* y(count, cols, rows) = x(count, rows, cols) */
    void (*transpose)(float *y, const float *x, int64_t count, int64_t rows, int64_t cols);
    /* These work on the outputs of one sample from w->from to before w->to, and add to dx. include_pad: the mean counts
     * padding as zeros. */
    void (*maxpool)(float *y, const float *x, const efl_window *window);
    void (*maxpool_backward)(float *dx, const float *dy, const float *x, const efl_window *window);
    void (*avgpool)(float *y, const float *x, const efl_window *window, int include_pad);
    void (*avgpool_backward)(float *dx, const float *dy, const efl_window *window, int include_pad);
    /* One step of a recurrent op, for B samples and H units. c, h, kept, dkept and their gradients are (B,H).
     * LSTM: gates (B,4H) in the order i o f c~ holds x Wx + bx before the call and the activated gates after it.
     * sums (B,4H) is h Wh + bh. c = f c_before + i c~; h = o tanh(c). */
    void (*lstm_forward)(float *gates, const float *sums, float *c, const float *c_before, float *h, int64_t batch,
                         int64_t hidden);
    /* gates: activated before, the gradients of their sums after. c before, h after. dc: the part of dL/dc that comes
     * from the next step before, dL/dc_before after. */
    void (*lstm_backward)(float *gates, float *c, const float *c_before, const float *dh, float *dc, int64_t batch,
                          int64_t hidden);
    /* GRU: gates (B,3H) in the order z r h~ holds x Wx + bx. This first part activates z and r, with recurrent = the
     * sums that h adds. reset_after: kept = h's sum for h~, and h~'s sum in gates += r kept; else kept = r h. */
    void (*gru_gates)(float *gates, const float *recurrent, const float *h, float *kept, int reset_after, int64_t batch,
                      int64_t hidden);
    /* The second part: h~ = tanh(its sum in gates + recurrent, unless that is NULL); h = (1 - z) h~ + z h_before. */
    void (*gru_blend)(float *gates, const float *recurrent, const float *h_before, float *h, int64_t batch,
                      int64_t hidden);
    /* gates: z r h~ before, dz r dh~ after, where dz and dh~ are gradients of the sums. dh: dL/dh before,
     * z dL/dh after, which is one term of dL/dh_before. */
    void (*gru_blend_backward)(float *gates, const float *h_before, float *dh, int64_t batch, int64_t hidden);
    /* gates: r before, the gradient of r's sum after. dkept NULL (reset_after): kept becomes its gradient; else
     * dh += r dkept. */
    void (*gru_gates_backward)(float *gates, float *kept, const float *dkept, const float *h_before, float *dh,
                               int64_t batch, int64_t hidden);

    /* For codecs/. A kernel with the name of a function in codecs.h does the same; peak_f32 is efl_peak_f32, and
     * add_f32 is efl_accumulate_f32 for |x| 2^30 below 2^51. payload(4N): little-endian float32, N a multiple of 64. */
    float (*peak_f32)(const uint8_t *payload, int64_t n);
    void (*add_f32)(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n);
    void (*quantize)(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                     int64_t n);
    void (*add_symbols)(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n);
    void (*take_symbols)(float *y, const uint8_t *symbols, const float *table, int64_t n);
    uint8_t (*largest_byte)(const uint8_t *bytes, int64_t n);
    void (*count_symbols)(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n);
    void (*coin_quantize)(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n);
    void (*coin_contexts)(uint8_t *contexts, int tables, uint64_t seed, int64_t start, int64_t n);
    void (*energy_sums)(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C);
    void (*energy_contexts)(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups,
                            int64_t C, int64_t start, int64_t n);
    void (*live_contexts)(uint8_t *contexts, const uint8_t *groups, const efl_live *live, int64_t start, int64_t n);
    void (*live_add)(int64_t *acc, const uint8_t *symbols, const int64_t *table, const efl_live *live, int64_t start,
                     int64_t n);
    void (*live_take)(float *y, const uint8_t *symbols, const float *table, const efl_live *live, int64_t start,
                      int64_t n);
    void (*look_up_contexts)(uint8_t *contexts, const uint8_t *groups, int64_t n);

    /* For combine/: efl_gram and efl_mix_rows. */
    void (*gram)(double *out, const float *rows, int64_t k, int64_t c);
    void (*weigh_rows)(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c);

    /* Most of a stream of 8, 16 or 32 lanes (codecs/rans.h); NULL for an instruction set on which vectors are no
     * faster. Decoding stops where fewer bytes are left than all lanes may need, and returns the number of symbols that
     * it decoded, a multiple of the lanes. slots has 4096 entries for each context. */
    int64_t (*rans_decode)(const efl_rans_run *run, uint32_t *state, const uint8_t **next, const uint8_t *end,
                           uint8_t *symbols, const uint32_t *slots);
    /* n is a multiple of the lanes. Context c has its spans and reciprocals at c * stride. The kernel may write to the
     * 32 bytes before the stream. NULL if a symbol has no frequency. */
    uint8_t *(*rans_encode)(const efl_rans_run *run, uint32_t *state, uint8_t *end, const uint8_t *symbols,
                            const uint32_t *spans, const uint32_t *reciprocals, int64_t stride);
} efl_kernel_table;

#ifdef EFL_PROFILE_SMALL
#define EFL_DECLARE_KERNEL(name, function) extern __typeof__(*((efl_kernel_table *)0)->name) efl_kernel_##name;
#define EFL_NAMED_KERNEL(name, function) .name = efl_kernel_##name,
EFL_KERNELS(EFL_DECLARE_KERNEL)
static const efl_kernel_table efl_kernels_small = {EFL_KERNELS(EFL_NAMED_KERNEL).isa = "scalar", .panel = 4};
#define efl_kernels (&efl_kernels_small)
#else
extern const efl_kernel_table *efl_kernels;
#endif

#endif
