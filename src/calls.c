/* calls.c: what every call of a net begins and ends with; what it does is in fit.c. A net computes with 0 for denormals
 * (denormals.h). What comes after belongs to the codecs, and has its caller's own mode. */
#include "codecs/codecs.h"
#include "denormals.h"
#include "net.h"
#include "threads.h"

static efl_float_mode begin(efl_net *net) {
    atomic_store(&net->cancelled, 0);
    if (net->pool != NULL) efl_pool_start(net->pool);
    return efl_flush_denormals();
}

int efl_fit(efl_net *net, const float *params, const efl_data *data, const efl_fit_options *options, float *delta,
            efl_fit_result *result, efl_error *error) {
    const efl_float_mode mode = begin(net);
    const int code = efl_run_fit(net, params, data, options, delta, result, error);
    efl_restore_float_mode(mode);
    if (code == EFL_OK) efl_delta(delta, delta, params, efl_net_num_params(net));
    return code;
}

int efl_gradient(efl_net *net, const float *params, const efl_data *data, float *gradient, efl_error *error) {
    const efl_float_mode mode = begin(net);
    const int code = efl_run_gradient(net, params, data, gradient, error);
    efl_restore_float_mode(mode);
    return code;
}

int efl_evaluate(efl_net *net, const float *params, const efl_data *data, double *loss, double *accuracy,
                 efl_error *error) {
    const efl_float_mode mode = begin(net);
    const int code = efl_run_evaluate(net, params, data, loss, accuracy, error);
    efl_restore_float_mode(mode);
    return code;
}

int efl_predict(efl_net *net, const float *params, const float *x, int64_t n, float *out, efl_error *error) {
    const efl_float_mode mode = begin(net);
    const int code = efl_run_predict(net, params, x, n, out, error);
    efl_restore_float_mode(mode);
    return code;
}
