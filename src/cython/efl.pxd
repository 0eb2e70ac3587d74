# The C API, efl.h, codecs/codecs.h, codecs/ring.h and combine/rows.h, as Cython sees it.
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "efl.h" nogil:
    enum:
        EFL_OK, EFL_MODEL, EFL_DATA, EFL_USAGE, EFL_MEMORY, EFL_CANCELLED

    ctypedef struct efl_error:
        int code
        char *message

    int efl_isa_select(const char *name, efl_error *error)
    const char *efl_isa()

    enum:
        EFL_MAX_DIMS, EFL_MAX_INPUTS, EFL_MAX_PARAMS, EFL_MAX_INTS, EFL_MAX_FLOATS, EFL_MAX_LOSSES, EFL_MAX_THREADS

    ctypedef struct efl_shape:
        int ndim
        int64_t *dim

    ctypedef struct efl_node:
        char *op
        int num_inputs, num_params, num_ints, num_floats
        int *inputs
        int *params
        int64_t *ints
        double *floats

    ctypedef struct efl_param:
        efl_shape shape
        bint trainable

    ctypedef struct efl_plan_loss:
        const char *name
        int input
        double weight

    ctypedef struct efl_plan:
        efl_shape input
        int num_nodes, num_params
        const efl_node *nodes
        const efl_param *params
        const char *loss
        int loss_input, output, apart
        int num_losses
        const efl_plan_loss *losses

    ctypedef struct efl_net:
        pass

    int efl_net_new(efl_net **net, const efl_plan *plan, int64_t batch, int64_t max_arena_bytes,
                    efl_error *error)
    void efl_net_free(efl_net *net)
    int efl_plan_flops(const efl_plan *plan, double *flops, efl_error *error)
    ctypedef struct efl_needs:
        int64_t arena_bytes, least_bytes
        int mixes_samples

    int efl_plan_needs(const efl_plan *plan, int64_t batch, efl_needs *needs, efl_error *error)
    int efl_net_use_threads(efl_net *net, int threads, int64_t max_arena_bytes, efl_error *error)
    int efl_net_threads(const efl_net *net)
    int64_t efl_net_arena_bytes(const efl_net *net)
    double efl_net_flops_again(const efl_net *net)
    int64_t efl_net_num_params(const efl_net *net)
    int64_t efl_net_target_size(const efl_net *net)
    int64_t efl_net_label_count(const efl_net *net)
    bint efl_net_mixes_samples(const efl_net *net)
    int efl_net_num_values(const efl_net *net)
    const efl_shape *efl_net_shape(const efl_net *net, int value)
    int64_t efl_net_size(const efl_net *net, int value)
    int64_t efl_net_flops(const efl_net *net, int node)
    int efl_net_output(const efl_net *net)

    ctypedef struct efl_data:
        const float *x
        const int64_t *labels
        const float *targets
        int64_t n
        const int64_t *rows

    ctypedef struct efl_fit_options:
        int64_t epochs, batch_size, max_steps
        uint64_t seed
        bint nesterov, adam
        double lr, momentum, weight_decay, prox_mu, clip_norm
        const float *correction
        bint buffered

    ctypedef struct efl_fit_result:
        int64_t steps
        double loss

    int efl_fit(efl_net *net, const float *params, const efl_data *data, const efl_fit_options *options,
                float *delta, efl_fit_result *result, efl_error *error)
    void efl_net_cancel(efl_net *net)
    void efl_net_set_share(efl_net *net, int percent)
    int efl_gradient(efl_net *net, const float *params, const efl_data *data, float *gradient,
                     efl_error *error)
    int efl_evaluate(efl_net *net, const float *params, const efl_data *data, double *loss,
                     double *accuracy, efl_error *error)
    int efl_predict(efl_net *net, const float *params, const float *x, int64_t n, float *out, efl_error *error)
    bint efl_all_finite(const float *x, int64_t n)
    void efl_permutation(uint32_t *order, int64_t n, uint64_t seed, uint64_t epoch)

cdef extern from "codecs/codecs.h" nogil:
    enum:
        EFL_ENERGY_CONTEXTS

    void efl_crc32c_init()
    uint32_t efl_crc32c(uint32_t crc, const uint8_t *data, int64_t size)

    void efl_accumulate_f32(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n)
    float efl_fixed(int64_t *fixed, const float *x, int64_t weight, int64_t n)
    float efl_peak_f32(const uint8_t *payload, int64_t n)
    double efl_rms(const float *x, int64_t n)

    ctypedef struct efl_symbol_counts:
        uint64_t symbol[256]
        int64_t excess[3]

    void efl_quantize(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                      int64_t n)
    void efl_add_symbols(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n)
    void efl_only_occurring(float *levels, const uint16_t *frequencies, int64_t tables)
    void efl_take_symbols(float *y, const uint8_t *symbols, const float *table, int64_t n)
    uint8_t efl_largest(const uint8_t *bytes, int64_t n)
    void efl_count_symbols(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n)
    void efl_coin_quantize(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n)
    void efl_coin_contexts(uint8_t *contexts, int tables, uint64_t seed, int64_t start, int64_t n)
    void efl_energy_sums(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C)
    void efl_energy_contexts(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups,
                             int64_t C, int64_t start, int64_t n)
    void efl_look_up_contexts(uint8_t *contexts, const uint8_t *groups, int64_t n)

    ctypedef struct efl_rans_table:
        uint16_t freq[256]

    ctypedef struct efl_rans_slots:
        pass

    ctypedef struct efl_rans_decoder:
        int lanes

    void efl_rans_normalise(efl_rans_table *table, const uint64_t *counts)
    int efl_rans_prepare_encoder(efl_rans_table *table)
    int efl_rans_prepare_decoder(const efl_rans_table *table, efl_rans_slots *slots)
    int64_t efl_rans_bound(int64_t n, int lanes)
    uint8_t *efl_rans_encode(uint8_t *end, const uint8_t *symbols, const uint8_t *contexts, int64_t n,
                             const efl_rans_table *tables, int count, int lanes)
    int efl_rans_begin(efl_rans_decoder *decoder, const uint8_t *stream, const uint8_t *end, int lanes)
    int efl_rans_decode(efl_rans_decoder *decoder, uint8_t *symbols, const uint8_t *contexts, int64_t n,
                        const efl_rans_slots *slots, int count)
    int efl_rans_ended(const efl_rans_decoder *decoder)

cdef extern from "codecs/live.h" nogil:
    enum: EFL_CLASSES
    ctypedef struct efl_live:
        int64_t R, C, stride, start
        int32_t *rows
        int32_t *columns
        uint8_t *row_classes
        uint8_t *column_classes
    void efl_live_fill(efl_live *live, const uint8_t *row_classes, int64_t rows, const uint8_t *column_classes,
                       int64_t columns)
    void efl_live_gather(uint8_t *symbols, const uint8_t *matrix, const efl_live *live)
    void efl_live_contexts(uint8_t *contexts, const uint8_t *groups, const efl_live *live, int64_t start, int64_t n)
    void efl_live_add(int64_t *acc, const uint8_t *symbols, const int64_t *table, const efl_live *live, int64_t start,
                      int64_t n)
    void efl_live_take(float *y, const uint8_t *symbols, const float *table, const efl_live *live, int64_t start,
                       int64_t n)

cdef extern from "codecs/classes.h" nogil:
    enum: EFL_CLASSES_NOT_TWO, EFL_CLASSES_CUT_OFF, EFL_CLASSES_STREAM, EFL_CLASSES_MOST
    int64_t efl_classes_read(uint8_t *classes, const uint8_t *kinds, int64_t n, const uint8_t *data, int64_t size)
    void efl_groups_read(uint8_t *groups, uint32_t mask)

cdef extern from "codecs/tables.h" nogil:
    enum: EFL_TABLE_CUT_OFF, EFL_TABLE_KIND, EFL_TABLE_SUM, EFL_TABLE_NO_ZERO, EFL_TABLE_SIZE, EFL_MAX_TABLES
    int64_t efl_table_read(uint16_t *freq, const uint8_t *data, int64_t size)
    int64_t efl_table_write(uint8_t *out, const uint16_t *freq)
    int64_t efl_table_best(uint8_t *out, uint16_t *freq, double *bits, const uint64_t *counts)
    double efl_table_groups(uint8_t *groups, const uint64_t *counts)

cdef extern from "combine/rows.h" nogil:
    void efl_gram(double *gram, const float *rows, int64_t k, int64_t c)
    void efl_mix_rows(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c)
    void efl_sort_columns(float *rows, int64_t k, int64_t c)
    void efl_mean_rows(float *out, const float *rows, int64_t first, int64_t last, int64_t c)
    void efl_mean_nearest(float *out, const float *rows, int64_t k, int64_t keep, int64_t c)

cdef extern from "codecs/ring.h" nogil:
    int64_t efl_ring_bytes(int64_t n, int m)
    void efl_ring_pack(uint8_t *data, const uint32_t *x, int m, int64_t n)
    int efl_ring_add(uint32_t *acc, const uint8_t *data, int m, int64_t n)
    void efl_ring_measure(double *squares, double *spread, const float *x, double scale, int64_t n)
    uint64_t efl_ring_round(int32_t *q, const float *x, double scale, int32_t reach, uint64_t seed, int64_t n)
    uint64_t efl_ring_round_down(int32_t *q, const float *x, double scale, int32_t reach, int64_t n)
    void efl_hadamard(float *x, int64_t block, int64_t n)
