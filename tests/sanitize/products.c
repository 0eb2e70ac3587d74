/* products.c: the matrix products alone, for AddressSanitizer: every size up to a few tiles, operands that end
 * where their memory ends, against sums in double. Compiled with dispatch.c and the objects of kernels.c.
 */
#include "efl.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static float *numbers(int64_t n, float phase) {
    float *x = malloc((size_t)n * sizeof *x);
    if (x == NULL) exit(1);
    for (int64_t i = 0; i < n; i++) x[i] = sinf((float)i * 0.7f + phase);
    return x;
}

typedef struct {
    int64_t m, n, k;
    float *a, *b, *c, *start; /* (M,K), (K,N), (M,N) and what was in it */
} sizes;

static void compare(const sizes *s, int a_turned, int b_turned, const float *base, float scale, const char *what) {
    for (int64_t i = 0; i < s->m; i++) {
        for (int64_t j = 0; j < s->n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < s->k; p++)
                sum += (double)s->a[a_turned ? p * s->m + i : i * s->k + p] *
                       s->b[b_turned ? j * s->k + p : p * s->n + j];
            sum = sum * scale + (base == NULL ? 0 : base == s->start ? base[i * s->n + j] : base[j]);
            if (fabs(sum - s->c[i * s->n + j]) < 1e-5 * (double)(s->k + 4)) continue;
            fprintf(stderr, "%s: %dx%dx%d is wrong at %d, %d\n", what, (int)s->m, (int)s->n, (int)s->k, (int)i, (int)j);
            exit(1);
        }
    }
}

static void restart(sizes *s) {
    for (int64_t i = 0; i < s->m * s->n; i++) s->c[i] = s->start[i];
}

static void try_size(int64_t m, int64_t n, int64_t k) {
    sizes s = {m, n, k, numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3), numbers(m * n, 3)};
    float *bias = numbers(n, 4), *v = numbers(m * n, 0);
    const efl_sgd plain = {.lr = 0.5f, .grad_scale = 0.5f}, heavy = {.lr = 0.5f, .grad_scale = 1, .momentum = 0};
    efl_kernels->gemm(s.c, n, s.a, k, 1, s.b, n, bias, m, n, k, 0);
    compare(&s, 0, 0, bias, 1, "gemm");
    restart(&s);
    efl_kernels->gemm(s.c, n, s.a, 1, m, s.b, n, NULL, m, n, k, 1);
    compare(&s, 1, 0, s.start, 1, "gemm, a turned, accumulated");
    efl_kernels->gemm_nt(s.c, n, s.a, s.b, m, n, k);
    compare(&s, 0, 1, NULL, 1, "gemm_nt");
    restart(&s);
    efl_kernels->gemm_update(s.c, NULL, NULL, s.start, NULL, s.a, 1, m, s.b, &plain, m, n, k);
    compare(&s, 1, 0, s.start, -0.25f, "gemm_update");
    restart(&s);
    efl_kernels->gemm_update(s.c, v, NULL, s.start, NULL, s.a, 1, m, s.b, &heavy, m, n, k);
    compare(&s, 1, 0, s.start, -0.5f, "gemm_update with momentum");
    const efl_sgd still = {.lr = -1}; /* w += c, whatever the gradient */
    for (int heavily = 0; heavily < 2; heavily++) {
        for (int64_t i = 0; i < m * n; i++) s.c[i] = v[i] = 0;
        efl_kernels->gemm_update(s.c, heavily ? v : NULL, NULL, s.start, s.start, s.a, 1, m, s.b, &still, m, n, k);
        for (int64_t i = 0; i < m * n; i++)
            if (s.c[i] != s.start[i] && !heavily) exit((fprintf(stderr, "gemm_update with a correction\n"), 1));
    }
    free(s.a), free(s.b), free(s.c), free(s.start), free(bias), free(v);
}

int main(void) {
    static const int64_t odd[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 64, 70};
    static const int64_t large[][3] = {{10, 200, 784}, {100, 66, 130}, {40, 1024, 20},
                                       {97, 257, 40},  {33, 20, 600},  {370, 70, 150}};
    enum { ODD = sizeof odd / sizeof *odd, LARGE = sizeof large / sizeof *large };
    efl_error error;
    if (efl_isa_select(getenv("EDGEFL_ISA"), &error) != EFL_OK) return puts(error.message), 1;
    for (int i = 0; i < ODD; i++)
        for (int j = 0; j < ODD; j++)
            for (int p = 0; p < ODD; p++) try_size(odd[i], odd[j], odd[p]);
    for (int i = 0; i < LARGE; i++) try_size(large[i][0], large[i][1], large[i][2]);
    printf("%s: %d products, nothing found\n", efl_isa(), ODD * ODD * ODD + LARGE);
    return 0;
}
