/* elementwise.c: activations, their gradients, and sums. Exponentials are computed here, in vectors. */

/* The loops below compute y(N) from x(N), one vector at a time; at `i`, `n - i` lanes of the last vector are used. */
#define FOR_VECTORS(i, n) for (int64_t i = 0; i < n; i += VL)

/* e^x to 2 ulp for x in [-87.3, 88.3], clamped outside; NaN stays NaN.
 * x = q ln 2 + r with |r| <= ln 2 / 2, e^r as a polynomial (the coefficients of Cephes' expf). */
INLINE vf exponential(vf x) {
    const float to_integer = 0x1.8p23f;
    x = choose(x < -87.33654f, splat(-87.33654f), x);
    x = choose(x > 88.37626f, splat(88.37626f), x);
    const vf shifted = x * 1.44269504f + to_integer;
    const vf q = shifted - to_integer;
    const vf r = (x - q * 0.693359375f) + q * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const vi power = ((vi)shifted - (vi)splat(to_integer) + 127) << 23;
    return p * (vf)power;
}

/* The exponent never grows, so nothing overflows for any x. */
INLINE vf sigmoid_of(vf x) {
    const vf small = exponential(-absolute(x));
    return choose(x < 0.0f, small, splat(1.0f)) / (1.0f + small);
}

/* Near 0 the quotient would cancel: an odd polynomial there (the coefficients of Cephes' tanhf). */
INLINE vf tanh_of(vf x) {
    const vf size = absolute(x), square = x * x;
    const vf small = exponential(-2.0f * size);
    const vf far = (1.0f - small) / (1.0f + small);
    vf p = splat(-5.70498872745e-3f);
    p = p * square + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    const vf near = p * square * x + x;
    return choose(size < 0.625f, near, choose(x < 0.0f, -far, far));
}

/* Written so that NaN passes: a diverged model must be noticed. */
INLINE vf relu_of(vf x) {
    return choose(x < 0.0f, splat(0.0f), x);
}

#define FORWARD(name)                                                                   \
    static void name##_forward(float *y, const float *x, int64_t n) {                   \
        FOR_VECTORS(i, n) store_upto(y + i, name##_of(load_upto(x + i, n - i)), n - i); \
    }
FORWARD(relu)
FORWARD(tanh)
FORWARD(sigmoid)

#define BACKWARD(name, gradient)                                                         \
    static void name##_backward(float *dx, const float *dy, const float *y, int64_t n) { \
        FOR_VECTORS(i, n) {                                                              \
            const vf d = load_upto(dy + i, n - i), v = load_upto(y + i, n - i);          \
            store_upto(dx + i, gradient, n - i);                                         \
        }                                                                                \
    }
BACKWARD(relu, choose(v > 0.0f, d, splat(0.0f)))
BACKWARD(tanh, d * (1.0f - v * v))
BACKWARD(sigmoid, d * v * (1.0f - v))

/* The largest of x(N); a NaN may count as the least. */
static float largest(const float *x, int64_t n) {
    float peak = x[0];
    if (n >= VL) {
        vf peaks = load(x);
        for (int64_t i = VL; i < n; i += VL) {
            const vf v = load(x + (i + VL <= n ? i : n - VL)); /* some elements of the last vector again */
            peaks = choose(v > peaks, v, peaks);
        }
        for (int lane = 0; lane < VL; lane++) peak = peaks[lane] > peak ? peaks[lane] : peak;
        return peak;
    }
    for (int64_t i = 1; i < n; i++) peak = x[i] > peak ? x[i] : peak;
    return peak;
}

static double softmax(float *y, const float *x, int64_t n) {
    const float peak = largest(x, n);
    vf sums = {0};
    FOR_VECTORS(i, n) {
        vf e = exponential(load_upto(x + i, n - i) - peak);
        store_upto(y + i, e, n - i);
        if (n - i < VL) e = load_n(y + i, n - i);
        sums += e;
    }
    const float sum = sum_lanes(sums);
    FOR_VECTORS(i, n) store_upto(y + i, load_upto(y + i, n - i) / sum, n - i);
    return (double)peak + (double)logf(sum);
}

static void softmax_backward(float *dx, const float *dy, const float *y, int64_t n) {
    vf sums = {0};
    FOR_VECTORS(i, n) sums += load_upto(dy + i, n - i) * load_upto(y + i, n - i);
    const float dot = sum_lanes(sums);
    FOR_VECTORS(i, n) store_upto(dx + i, load_upto(y + i, n - i) * (load_upto(dy + i, n - i) - dot), n - i);
}

static void add(float *y, const float *x, int64_t n) {
    FOR_VECTORS(i, n) store_upto(y + i, load_upto(y + i, n - i) + load_upto(x + i, n - i), n - i);
}

static double sum_squares(const float *x, int64_t n) {
    double sums[4] = {0}; /* independent, or the additions wait for one another */
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int lane = 0; lane < 4; lane++) sums[lane] += (double)x[i + lane] * x[i + lane];
    for (; i < n; i++) sums[0] += (double)x[i] * x[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* x - x is 0 for what is finite, NaN for the rest; a sum with NaN in it is NaN. */
static int all_finite(const float *x, int64_t n) {
    vf sums[4] = {{0}}; /* independent, as above */
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int k = 0; k < 4; k++) {
            const vf v = load(x + i + k * VL);
            sums[k] += v - v;
        }
    for (; i < n; i += VL) {
        const vf v = load_upto(x + i, n - i);
        sums[0] += v - v;
    }
    return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])) == 0;
}

#define ADAM_BETA2 0.999f
#define ADAM_EPSILON 1e-8f

/* The first n (or all VL) lanes of one weight's step; v, s and c as in sgd_step. */
INLINE void sgd_lanes(float *w, float *v, float *s, vf g, const float *w0, const float *c, const efl_sgd *o,
                      int64_t n) {
    const vf weight = load_upto(w, n);
    vf step = g * o->grad_scale + o->weight_decay * weight;
    if (c != NULL) step += load_upto(c, n);
    if (o->prox_mu != 0) step += o->prox_mu * (weight - load_upto(w0, n));
    if (o->adam) {
        const vf first = o->momentum * load_upto(v, n) + (1.0f - o->momentum) * step;
        const vf second = ADAM_BETA2 * load_upto(s, n) + (1.0f - ADAM_BETA2) * step * step;
        store_upto(v, first, n);
        store_upto(s, second, n);
        step = first * o->unbias1 / (square_root(second * o->unbias2) + ADAM_EPSILON);
    } else if (v != NULL) {
        const vf moved = step + o->momentum * load_upto(v, n);
        store_upto(v, moved, n);
        if (o->nesterov)
            step += o->momentum * moved;
        else
            step = moved;
    }
    store_upto(w, weight - o->lr * step, n);
}

/* w -= lr c: all that a correction does in plain SGD. */
static void shift(float *w, const float *c, float lr, int64_t n) {
    for (int64_t i = 0; c != NULL && i < n; i++) w[i] -= lr * c[i];
}

/* The settings are copied, so that the compiler knows that no store changes them. */
static void sgd_step(float *w, float *v, float *s, const float *g, const float *w0, const float *c, const efl_sgd *sgd,
                     int64_t n) {
    const efl_sgd o = *sgd;
    if (v == NULL && o.weight_decay == 0 && o.prox_mu == 0) {
        const float rate = o.lr * o.grad_scale;
        for (int64_t i = 0; i < n; i++) w[i] -= rate * g[i];
        shift(w, c, o.lr, n);
        return;
    }
    FOR_VECTORS(i, n)
    sgd_lanes(w + i, v == NULL ? NULL : v + i, s == NULL ? NULL : s + i, load_upto(g + i, n - i), w0 + i,
              c == NULL ? NULL : c + i, &o, n - i);
}
