/* table.c: ops and losses by name: all of them, or those of one plan. What no table names, the linker drops. */
#include "ops.h"

#include <string.h>

#define EFL_OP_ENTRY(name) &efl_op_##name,
#define EFL_LOSS_ENTRY(name) &efl_loss_##name,

#ifdef EFL_PLAN_HEADER
#include EFL_PLAN_HEADER
#else
#define EFL_PLAN_OPS EFL_OPS
#define EFL_PLAN_LOSSES EFL_LOSSES
#endif

static const efl_op *const ops[] = {EFL_PLAN_OPS(EFL_OP_ENTRY)};
static const efl_loss *const losses[] = {EFL_PLAN_LOSSES(EFL_LOSS_ENTRY)};

const efl_op *efl_op_find(const char *name) {
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(ops[i]->name, name) == 0) return ops[i];
    return NULL;
}

int efl_op_is(const efl_op *op, const char *name) {
    return strcmp(op->name, name) == 0;
}

const efl_loss *efl_loss_find(const char *name) {
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++)
        if (strcmp(losses[i]->name, name) == 0) return losses[i];
    return NULL;
}

int64_t efl_shape_size(const efl_shape *shape) {
    int64_t size = 1;
    for (int i = 0; i < shape->ndim; i++) {
        if (shape->dim[i] < 1 || __builtin_mul_overflow(size, shape->dim[i], &size)) return -1;
        if (size > (int64_t)1 << 30) return -1;
    }
    return size;
}
