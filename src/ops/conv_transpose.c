/* conv_transpose.c: the transposed convolution, ONNX's ConvTranspose: y(OH, OW, O) from x(H, W, C), where each pixel of
 * x adds its multiple of a window to y. Params: W(KH, KW, O / groups, C), and b(O) or not. Ints: those of conv, then
 * OH, OW: a stride of more than one leaves open how far y reaches beyond the last window.
 *
 * It is the convolution with these windows from y to x, run backwards: forward is that one's gradient of its input,
 * the gradient of x its output, and the gradient of W the same in both.
 */
#include "convolution.h"

enum { OUT = 9 }; /* of the ints */

static efl_convolution shaped(const efl_op_shapes *s) {
    const efl_shape *x = &s->x[0], *k = &s->w[0];
    const int64_t *ints = s->node->ints, groups = ints[8];
    return (efl_convolution){.window = {.x = {ints[OUT], ints[OUT + 1], k->dim[2] * groups},
                                        .y = {0, 0, x->dim[2]},
                                        .kernel = {k->dim[0], k->dim[1]}},
                             .groups = groups};
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *k = &s->w[0], *b = &s->w[1];
    const int64_t *ints = s->node->ints, groups = ints[8], most = (int64_t)1 << 30;
    if (x->ndim != 3 || k->ndim != 4)
        return efl_fail(error, EFL_MODEL, "needs an input (H, W, C) and a weight of 4 axes");
    if (groups < 1 || groups > most || x->dim[2] % groups != 0 || k->dim[3] != x->dim[2])
        return efl_fail(error, EFL_MODEL, "needs a weight (KH, KW, O / groups, C), groups dividing C");
    s->y = (efl_shape){.ndim = 3, .dim = {ints[OUT], ints[OUT + 1], k->dim[2] * groups}};
    if (efl_shape_size(&s->y) < 0) return efl_fail(error, EFL_MODEL, "has an output that is empty or too large");
    if (s->node->num_params == 2 && (b->ndim != 1 || b->dim[0] != s->y.dim[2]))
        return efl_fail(error, EFL_MODEL, "needs a bias (O)");
    efl_convolution c = shaped(s);
    if (efl_window_read(&c.window, ints, 1, error) != EFL_OK) return error->code;
    if (c.window.y[0] != x->dim[0] || c.window.y[1] != x->dim[1])
        return efl_fail(error, EFL_MODEL, "needs an output whose windows are as many as its input's pixels");
    s->flops = 2 * efl_shape_size(x) * k->dim[0] * k->dim[1] * k->dim[2];
    if (!efl_convolution_room(s, &c)) return efl_fail(error, EFL_MODEL, "has an input too large with its padding");
    return EFL_OK;
}

static efl_convolution geometry(const efl_op_run *run) {
    efl_convolution c = shaped(run->shapes);
    efl_error error;
    efl_window_read(&c.window, run->shapes->node->ints, 1, &error);
    return c;
}

static void forward(const efl_op_run *run) {
    const efl_convolution c = geometry(run);
    efl_convolution_input(run, &c, run->y, run->x[0], run->w[0], run->w[1]);
}

static void backward(const efl_op_run *run) {
    const efl_convolution c = geometry(run);
    const int64_t *y = c.window.x;
    if (run->dx[0] != NULL) efl_convolution_output(run, &c, run->dx[0], run->dy, run->w[0], NULL);
    efl_convolution_gradients(
        run, &c,
        &(efl_convolution_params){run->dw[0], run->dy, run->x[0], run->dw[1], run->dy, run->batch * y[0] * y[1], y[2]});
}

const efl_op efl_op_conv_transpose = {
    .name = "conv_transpose",
    .flags = EFL_READS_X | EFL_X_FOR_W,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 2,
    .num_ints = 11,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
