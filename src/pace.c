/* pace.c: how much of the time a net computes. A device's owner may leave it a share of one core only.
 *
 * A net that may work p percent of the time rests (100 - p) / p as long as it has worked, after every WORK_S of work
 * and between two pieces of a batch. Cancelling ends a rest.
 */
#define _POSIX_C_SOURCE 200809L
#include "net.h"

#include <time.h>

#define WORK_S 0.02
#define NAP_S 0.05

#if defined(__unix__) || defined(__APPLE__)
static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void nap(double s) {
    const struct timespec length = {0, (long)(1e9 * (s < NAP_S ? s : NAP_S))};
    nanosleep(&length, NULL);
}
#else /* no operating system: nobody to leave the time to */
static double seconds(void) {
    return 0;
}

static void nap(double s) {
    (void)s;
}
#endif

void efl_net_set_share(efl_net *net, int percent) {
    atomic_store(&net->rest, 100 - percent);
}

void efl_begin_work(efl_net *net) {
    if (atomic_load(&net->rest) > 0) net->working_since = seconds();
}

void efl_rest(efl_net *net) {
    const int rest = atomic_load(&net->rest);
    if (rest == 0) return;
    const double now = seconds(), worked = now - net->working_since;
    if (worked < WORK_S) return;
    const double until = now + worked * rest / (100 - rest);
    for (double left = until - now; left > 0 && !atomic_load(&net->cancelled); left = until - seconds()) nap(left);
    net->working_since = seconds();
}
