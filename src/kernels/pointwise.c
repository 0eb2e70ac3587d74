/* pointwise.c: the further activations and functions of one number, and their derivatives.
 *
 * Each kind has a function from a vector to a vector, with two numbers p and q of its node. Its derivative is a
 * function of v, which is x or the y that forward wrote (ops/pointwise.c says which). All of them pass NaN through.
 */

typedef uint32_t vu __attribute__((vector_size(VL * 4), may_alias)); /* which may wrap */

/* log(1 + e) for e in [0, 1] as 2 atanh(e / (2 + e)): computing 1 + e would round a small e away. */
INLINE vf log1p_of(vf e) {
    const vf s = e / (2.0f + e), square = s * s;
    vf p = splat(1 / 15.0f);
    p = p * square + 1 / 13.0f;
    p = p * square + 1 / 11.0f;
    p = p * square + 1 / 9.0f;
    p = p * square + 1 / 7.0f;
    p = p * square + 1 / 5.0f;
    p = p * square + 1 / 3.0f;
    return 2.0f * (p * square * s + s);
}

/* x = 2^k m with m in [sqrt 1/2, sqrt 2); log m = 2 atanh((m - 1) / (m + 1)). */
INLINE vf log_of(vf x) {
    const vi tiny = x < 1.17549435e-38f;
    const vf scaled = choose(tiny, x * 0x1p23f, x);
    const vi bits = (vi)((vu)scaled - 0x3F3504F3u);
    const vf m = (vf)((bits & 0x7FFFFF) + 0x3F3504F3);
    const vf k = __builtin_convertvector(bits >> 23, vf) - choose(tiny, splat(23), splat(0));
    const vf s = (m - 1.0f) / (m + 1.0f), square = s * s;
    vf p = splat(2 / 9.0f);
    p = p * square + 2 / 7.0f;
    p = p * square + 2 / 5.0f;
    p = p * square + 2 / 3.0f;
    vf y = p * square * s + 2.0f * s + k * 1.42860677e-6f + k * 0.693145752f; /* ln 2 in two parts */
    y = choose(x < __FLT_MAX__, y, x * x); /* infinity, and NaN stays NaN */
    y = choose(x == __FLT_MAX__, splat(88.7228391f), y);
    return choose(x > 0.0f, y, choose(x == 0.0f, splat(-INFINITY), choose(x < 0.0f, splat(NAN), y)));
}

/* Polynomials fitted for this file: erf x / x in x^2 up to 0.9, and log erfc x from there to 4, where erf is 1. */
INLINE vf erf_of(vf x) {
    vf size = absolute(x);
    size = choose(size > 4.0f, splat(4.0f), size);
    const vf square = size * size;
    vf near = splat(-6.106989574e-4f);
    near = near * square + 5.015357350e-3f;
    near = near * square - 2.678133978e-2f;
    near = near * square + 1.128221212e-1f;
    near = near * square - 3.761253064e-1f;
    near = near * square + 1.128379155f;
    vf far = splat(1.421115884e-4f);
    far = far * size - 2.521759277e-3f;
    far = far * size + 2.021101748e-2f;
    far = far * size - 9.993906202e-2f;
    far = far * size - 6.414668394e-1f;
    far = far * size - 1.125306941f;
    far = far * size - 7.240790391e-4f;
    far = 1.0f - exponential(far);
    return choose(size < 0.9f, near * x, choose(x < 0.0f, -far, far));
}

/* e^x that reaches infinity, which `exponential` stops short of. */
INLINE vf exp_of(vf x) {
    const vf half = exponential(0.5f * x);
    return choose(x > 88.0f, half * half, exponential(x));
}

/* e^x - 1 for x <= 0 */
INLINE vf expm1_of(vf x) {
    const vf t = tanh_of(0.5f * x);
    return 2.0f * t / (1.0f - t);
}

INLINE vf clip_of(vf x, float low, float high) {
    x = choose(x < low, splat(low), x);
    return choose(x > high, splat(high), x);
}

#define ROOT_2_OVER_PI 0.797884561f
INLINE vf gelu_inner(vf x) {
    return tanh_of(ROOT_2_OVER_PI * (x + 0.044715f * x * x * x));
}

/* The normal distribution's integral up to x, of which *bell = e^(-x^2 / 2) is the better part: for -|x| it is the bell
 * times a polynomial in t = 1 / (1 + 0.3 |x|), fitted for this file to 3e-7 of itself; nothing cancels far left. */
INLINE vf normal_integral(vf x, vf *bell) {
    const vf t = 1.0f / (1.0f + 0.3f * absolute(x));
    vf p = splat(3.782328353e-2f);
    p = p * t - 1.663044437e-1f;
    p = p * t + 2.223661990e-1f;
    p = p * t - 6.881167889e-2f;
    p = p * t + 1.368292282e-1f;
    p = p * t + 9.730577829e-2f;
    p = p * t + 1.211927114e-1f;
    p = p * t + 1.195989511e-1f;
    *bell = exponential(-0.5f * x * x);
    const vf tail = *bell * p * t;
    return choose(x < 0.0f, tail, 1.0f - tail);
}

INLINE vf gelu_of(vf x) {
    vf bell;
    return x * normal_integral(x, &bell);
}

INLINE vf gelu_slope(vf x) {
    vf bell;
    const vf integral = normal_integral(x, &bell);
    return integral + x * 0.398942280f * bell;
}

INLINE vf gelu_tanh_slope(vf x) {
    const vf t = gelu_inner(x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * ROOT_2_OVER_PI * (1.0f + 0.134145f * x * x);
}

INLINE vf hard_swish_slope(vf x) {
    const vf middle = choose(x > 3.0f, splat(1.0f), x * (1 / 3.0f) + 0.5f);
    return choose(x < -3.0f, splat(0.0f), middle);
}

/* 1 - e^-y, the slope of softplus from what it gave */
INLINE vf softplus_slope(vf y) {
    return choose(y < 0.01f, y * (1.0f - y * (0.5f - y * (1 / 6.0f))), 1.0f - exponential(-y));
}

INLINE vf softplus_of(vf x) {
    return choose(x < 0.0f, splat(0.0f), x) + log1p_of(exponential(-absolute(x)));
}

/* x tanh(softplus x) has the slope t + x (1 - t^2) / (1 + e^-x), t the tanh. */
INLINE vf mish_slope(vf x) {
    const vf t = tanh_of(softplus_of(x));
    return t + x * (1.0f - t * t) * sigmoid_of(x);
}

INLINE vf shrink_of(vf x, float lambda, float bias) {
    const vf shrunk = choose(x < 0.0f, x + bias, x - bias);
    return choose((x >= -lambda) & (x <= lambda), splat(0.0f), shrunk);
}

static inline vf by_lane(float (*f)(float), vf x) {
    vf y = {0};
    for (int lane = 0; lane < VL; lane++) y[lane] = f(x[lane]);
    return y;
}

static inline vf power_of(vf x, float exponent) {
    if (exponent == 2) return x * x;
    if (exponent == 1) return x;
    vf y = {0};
    for (int lane = 0; lane < VL; lane++) y[lane] = powf(x[lane], exponent);
    return y;
}

/* A power of 0 is 1 everywhere, at 0 too. */
static inline vf power_slope(vf x, float exponent) {
    if (exponent == 0) return splat(0.0f);
    return exponent * power_of(x, exponent - 1);
}

#define POINTWISE(kind, value)                       \
    case EFL_POINT_##kind:                           \
        FOR_VECTORS(i, n) {                          \
            const vf x = load_upto(from + i, n - i); \
            store_upto(y + i, value, n - i);         \
        }                                            \
        break;

static void pointwise(efl_pointwise kind, float *y, const float *from, float p, float q, int64_t n) {
    switch (kind) {
        POINTWISE(LEAKY_RELU, choose(x < 0.0f, p * x, x))
        POINTWISE(CLIP, clip_of(x, p, q))
        POINTWISE(HARD_SIGMOID, clip_of(p * x + q, 0, 1))
        POINTWISE(HARD_SWISH, x * clip_of(x * (1 / 6.0f) + 0.5f, 0, 1))
        POINTWISE(GELU, gelu_of(x))
        POINTWISE(GELU_TANH, 0.5f * x * (1.0f + gelu_inner(x)))
        POINTWISE(ERF, erf_of(x))
        POINTWISE(SQRT, square_root(x))
        POINTWISE(EXP, exp_of(x))
        POINTWISE(LOG, log_of(x))
        POINTWISE(POW, power_of(x, p))
        POINTWISE(ABS, absolute(x))
        POINTWISE(ELU, choose(x < 0.0f, p * expm1_of(x), x))
        POINTWISE(SOFTPLUS, softplus_of(x))
        POINTWISE(MISH, x * tanh_of(softplus_of(x)))
        POINTWISE(THRESHOLD, choose(x <= p, splat(q), x))
        POINTWISE(SHRINK, shrink_of(x, p, q))
        POINTWISE(SIN, by_lane(sinf, x))
        POINTWISE(COS, by_lane(cosf, x))
    }
}

#define POINTWISE_BACKWARD(kind, slope)                                            \
    case EFL_POINT_##kind:                                                         \
        FOR_VECTORS(i, n) {                                                        \
            const vf d = load_upto(dy + i, n - i), v = load_upto(from + i, n - i); \
            store_upto(dx + i, d * (slope), n - i);                                \
        }                                                                          \
        break;

static void pointwise_backward(efl_pointwise kind, float *dx, const float *dy, const float *from, float p, float q,
                               int64_t n) {
    const vf zero = splat(0.0f), one = splat(1.0f);
    switch (kind) {
        POINTWISE_BACKWARD(LEAKY_RELU, choose(v > 0.0f, one, splat(p)))
        POINTWISE_BACKWARD(CLIP, choose((v > p) & (v < q), one, zero))
        POINTWISE_BACKWARD(HARD_SIGMOID, choose((v > 0.0f) & (v < 1.0f), splat(p), zero))
        POINTWISE_BACKWARD(HARD_SWISH, hard_swish_slope(v))
        POINTWISE_BACKWARD(GELU, gelu_slope(v))
        POINTWISE_BACKWARD(GELU_TANH, gelu_tanh_slope(v))
        POINTWISE_BACKWARD(ERF, 1.12837917f * exponential(-v * v))
        POINTWISE_BACKWARD(SQRT, 0.5f / v)
        POINTWISE_BACKWARD(EXP, v)
        POINTWISE_BACKWARD(LOG, 1.0f / v)
        POINTWISE_BACKWARD(POW, power_slope(v, p))
        POINTWISE_BACKWARD(ABS, choose(v > 0.0f, one, choose(v < 0.0f, -one, zero)))
        POINTWISE_BACKWARD(ELU, choose(v > 0.0f, one, v + p))
        POINTWISE_BACKWARD(SOFTPLUS, softplus_slope(v))
        POINTWISE_BACKWARD(MISH, mish_slope(v))
        POINTWISE_BACKWARD(THRESHOLD, choose(v > p, one, zero))
        POINTWISE_BACKWARD(SHRINK, choose((v < -p) | (v > p), one, zero))
        POINTWISE_BACKWARD(SIN, by_lane(cosf, v))
        POINTWISE_BACKWARD(COS, -by_lane(sinf, v))
    }
}

/* murmur3's finalizer: every bit of the counter reaches every bit of the result. */
INLINE vu scramble(vu h) {
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return h ^ h >> 16;
}

/* 24 bits of element i come from (key, i) alone, so backward draws what forward drew, on any instruction set. */
static void dropout(float *y, const float *x, uint64_t key, float ratio, int64_t n) {
    const uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32), threshold = (uint32_t)(ratio * 0x1p24f);
    const float scale = 1 / (1 - ratio);
    vu lane = {0};
    for (int i = 0; i < VL; i++) lane[i] = (uint32_t)i;
    FOR_VECTORS(i, n) {
        const vu drawn = scramble(scramble((lane + (uint32_t)i) ^ low) ^ high) >> 8;
        const vf kept = load_upto(x + i, n - i) * scale;
        store_upto(y + i, choose((vi)(drawn >= threshold), kept, splat(0)), n - i);
    }
}
