/* dispatch.c: chooses the kernel table, once. The small profile has only one. */
#include "../efl.h"
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#ifdef EFL_PROFILE_SMALL
int efl_isa_select(const char *name, efl_error *error) {
    if (name == NULL || *name == '\0' || strcmp(name, efl_kernels->isa) == 0) return EFL_OK;
    return efl_fail(error, EFL_USAGE, "EDGEFL_ISA=%.20s: this build has scalar alone, unset it", name);
}
#else
extern const efl_kernel_table efl_kernels_baseline;
const efl_kernel_table *efl_kernels = &efl_kernels_baseline;

#ifdef EFL_X86_DISPATCH
extern const efl_kernel_table efl_kernels_avx2, efl_kernels_avx512;

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("sse4.2");
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f");
}
#endif

int efl_isa_select(const char *name, efl_error *error) {
    const int any = name == NULL || *name == '\0';
#ifdef EFL_X86_DISPATCH
    __builtin_cpu_init();
    if (has_avx512() && (any || strcmp(name, "avx512") == 0)) {
        efl_kernels = &efl_kernels_avx512;
        return EFL_OK;
    }
    if (has_avx2() && (any || strcmp(name, "avx2") == 0)) {
        efl_kernels = &efl_kernels_avx2;
        return EFL_OK;
    }
#endif
    if (any || strcmp(name, "baseline") == 0 || strcmp(name, efl_kernels_baseline.isa) == 0) {
        efl_kernels = &efl_kernels_baseline;
        return EFL_OK;
    }
    return efl_fail(error, EFL_USAGE,
                    "EDGEFL_ISA=%.20s is unknown or not supported by this processor: "
                    "use baseline, avx2 or avx512, or unset it",
                    name);
}
#endif

const char *efl_isa(void) {
    return efl_kernels->isa;
}
