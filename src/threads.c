/* threads.c: see threads.h.
 *
 * A piece of work is one atomic word: which of its parts nobody has begun, and how many it has. To claim a part is to
 * clear its bit. The caller returns only when all parts have returned, so a thread that has claimed one knows that
 * `part` and `context` are still that work's, even if it was late and the word that it saw was an earlier one that
 * looked the same.
 *
 * Each thread claims parts of a range of its own first, so that the samples of one op are where they were at the op
 * before, in the cache of one core. A thread that has done its own takes over what others have left, from their ends.
 *
 * Waking a thread takes longer than many a piece of work, so a thread looks out for SPIN_NS before it sleeps. It says
 * that it sleeps before it looks for the last time; a thread that has work for it publishes that first, and then looks
 * whether any thread sleeps. So one of the two sees the other.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "threads.h"

#include "denormals.h"
#include "efl.h"

#include <stdatomic.h>
#include <stdlib.h>

#if (defined(__unix__) || defined(__APPLE__)) && !defined(EFL_PROFILE_SMALL)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum {
    STACK = 1 << 20, /* bytes; kernels keep up to 70 KB there */
    SPIN_NS = 50000 /* about what it costs to sleep and to be woken; more would keep a core from others for nothing */
};

typedef struct {
    efl_pool *pool;
    pthread_t thread;
    int slot;
} efl_worker;

struct efl_pool {
    atomic_uint word; /* a bit for each part that nobody has begun; above them the count of parts */
    efl_pool_part *part; /* written before the word, read by threads that have claimed a part */
    void *context;
    atomic_int finished; /* parts that have returned */

    pthread_mutex_t mutex; /* for those that sleep */
    pthread_cond_t work, done;
    atomic_int sleepers, waiting, ending; /* threads that sleep for work; the caller sleeps until all is done */
    int threads, started, spins;
    pid_t process; /* that the threads belong to */
    efl_worker workers[];
};

static void make_ready(efl_pool *pool) {
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    atomic_init(&pool->word, 0);
    atomic_init(&pool->finished, 0);
    atomic_init(&pool->sleepers, 0);
    atomic_init(&pool->waiting, 0);
    atomic_init(&pool->ending, 0);
    pool->started = 0;
    pool->process = getpid();
}

/* That this process may use. */
static long count_cores(void) {
#if defined(__linux__)
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) return CPU_COUNT(&cores);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

/* With fewer cores than threads, one that looks out keeps another from working. */
efl_pool *efl_pool_new(int threads) {
    efl_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->workers[0]);
    if (pool == NULL) return NULL;
    pool->threads = threads;
    pool->spins = count_cores() >= threads;
    make_ready(pool);
    return pool;
}

static unsigned bits_below(int n) {
    return (1U << n) - 1;
}

/* The part that the thread claims, or -1: none is left. */
static int claim(efl_pool *pool, int slot) {
    unsigned word = atomic_load(&pool->word);
    for (;;) {
        const unsigned open = word & bits_below(EFL_POOL_PARTS);
        const int count = (int)(word >> EFL_POOL_PARTS);
        if (open == 0) return -1;
        const unsigned own = open & bits_below(count * (slot + 1) / pool->threads) &
                             ~bits_below(count * slot / pool->threads);
        int part = own != 0 ? 0 : EFL_POOL_PARTS - 1; /* the first of its own, or the last of all */
        while (!((own != 0 ? own : open) & 1U << part)) part += own != 0 ? 1 : -1;
        if (atomic_compare_exchange_weak(&pool->word, &word, word & ~(1U << part))) return part;
    }
}

static int has_work(efl_pool *pool) {
    return (atomic_load(&pool->word) & bits_below(EFL_POOL_PARTS)) != 0 || atomic_load(&pool->ending);
}

static int is_done(efl_pool *pool) {
    return atomic_load(&pool->finished) == (int)(atomic_load(&pool->word) >> EFL_POOL_PARTS);
}

static void wake_caller(efl_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->mutex);
}

/* All that there is for this thread. */
static void do_parts(efl_pool *pool, int slot) {
    for (int part; (part = claim(pool, slot)) >= 0;) {
        pool->part(pool->context, slot, part);
        atomic_fetch_add(&pool->finished, 1);
        if (slot > 0 && is_done(pool) && atomic_load(&pool->waiting)) wake_caller(pool);
    }
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Looks out for a while; whether it has come. */
static int look_out(efl_pool *pool, int (*has_come)(efl_pool *)) {
    if (has_come(pool)) return 1;
    if (!pool->spins) return 0;
    const int64_t end = nanoseconds() + SPIN_NS;
    do {
        if (has_come(pool)) return 1;
    } while (nanoseconds() < end);
    return 0;
}

static void await(efl_pool *pool, int (*has_come)(efl_pool *), atomic_int *asleep, pthread_cond_t *news) {
    if (look_out(pool, has_come)) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(asleep, 1);
    while (!has_come(pool)) pthread_cond_wait(news, &pool->mutex);
    atomic_fetch_sub(asleep, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *run_worker(void *argument) {
    const efl_worker *worker = argument;
    efl_pool *pool = worker->pool;
    efl_flush_denormals();
    while (!atomic_load(&pool->ending)) {
        do_parts(pool, worker->slot);
        await(pool, has_work, &pool->sleepers, &pool->work);
    }
    return NULL;
}

/* Signals are for the threads of the program. */
void efl_pool_start(efl_pool *pool) {
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pool->process != getpid()) make_ready(pool);
    if (pool->started == pool->threads - 1 || pthread_attr_init(&attributes) != 0) return;
    pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (; pool->started < pool->threads - 1; pool->started++) {
        efl_worker *worker = &pool->workers[pool->started];
        *worker = (efl_worker){.pool = pool, .slot = pool->started + 1};
        if (pthread_create(&worker->thread, &attributes, run_worker, worker) != 0) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

static void wake_workers(efl_pool *pool, int all) {
    pthread_mutex_lock(&pool->mutex);
    if (all)
        pthread_cond_broadcast(&pool->work);
    else
        pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

void efl_pool_run(efl_pool *pool, int count, efl_pool_part *part, void *context) {
    pool->part = part;
    pool->context = context;
    atomic_store(&pool->finished, 0);
    atomic_store(&pool->word, (unsigned)count << EFL_POOL_PARTS | bits_below(count));
    if (atomic_load(&pool->sleepers) > 0) wake_workers(pool, count > 2);
    do_parts(pool, 0);
    await(pool, is_done, &pool->waiting, &pool->done);
}

void efl_pool_free(efl_pool *pool) {
    if (pool == NULL) return;
    if (pool->process == getpid()) {
        atomic_store(&pool->ending, 1);
        wake_workers(pool, 1);
        for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
        pthread_mutex_destroy(&pool->mutex);
        pthread_cond_destroy(&pool->work);
        pthread_cond_destroy(&pool->done);
    }
    free(pool);
}
#else /* no operating system, or the small profile: one thread does it all */
struct efl_pool {
    int threads;
};

efl_pool *efl_pool_new(int threads) {
    efl_pool *pool = malloc(sizeof *pool);
    if (pool != NULL) pool->threads = threads;
    return pool;
}

void efl_pool_start(efl_pool *pool) {
    (void)pool;
}

void efl_pool_run(efl_pool *pool, int count, efl_pool_part *part, void *context) {
    (void)pool;
    for (int i = 0; i < count; i++) part(context, 0, i);
}

void efl_pool_free(efl_pool *pool) {
    free(pool);
}
#endif
