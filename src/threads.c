/* threads.c: see threads.h. One mutex guards a pool; parts are long enough for that (ops/parts.h).
 *
 * Each thread begins with a range of parts of its own, so that the samples of one op are where they were at the op
 * before, in the cache of one core. A thread that has done its own takes over what others have left, from their ends.
 */
#define _POSIX_C_SOURCE 200809L
#include "threads.h"

#include "denormals.h"
#include "efl.h"

#include <stdlib.h>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { STACK = 1 << 20 }; /* bytes; kernels keep up to 70 KB there */

typedef struct {
    efl_pool *pool;
    pthread_t thread;
    int slot;
} efl_worker;

typedef struct {
    int64_t next, end;
} efl_range;

struct efl_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    efl_pool_part *part;
    void *context;
    int64_t count, left, finished; /* parts: all, those that nobody has begun, those that have returned */
    efl_range ranges[EFL_MAX_THREADS];
    int threads, started, ending;
    pid_t process; /* that the threads belong to */
    efl_worker workers[];
};

static void make_ready(efl_pool *pool) {
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->count = pool->left = pool->finished = 0;
    pool->started = pool->ending = 0;
    pool->process = getpid();
}

efl_pool *efl_pool_new(int threads) {
    efl_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->workers[0]);
    if (pool == NULL) return NULL;
    pool->threads = threads;
    make_ready(pool);
    return pool;
}

static int64_t choose(efl_pool *pool, int slot) {
    efl_range *own = &pool->ranges[slot];
    if (own->next < own->end) return own->next++;
    for (int i = 0;; i++)
        if (pool->ranges[i].next < pool->ranges[i].end) return --pool->ranges[i].end;
}

/* One part, of which at least one is left, with the mutex locked before and after. */
static void do_one(efl_pool *pool, int slot) {
    const int64_t mine = choose(pool, slot);
    pool->left--;
    pthread_mutex_unlock(&pool->mutex);
    pool->part(pool->context, slot, mine);
    pthread_mutex_lock(&pool->mutex);
    if (++pool->finished == pool->count) pthread_cond_signal(&pool->done);
}

static void *run_worker(void *argument) {
    const efl_worker *worker = argument;
    efl_pool *pool = worker->pool;
    efl_flush_denormals();
    pthread_mutex_lock(&pool->mutex);
    while (!pool->ending) {
        if (pool->left > 0)
            do_one(pool, worker->slot);
        else
            pthread_cond_wait(&pool->work, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
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

void efl_pool_run(efl_pool *pool, int64_t count, efl_pool_part *part, void *context) {
    pthread_mutex_lock(&pool->mutex);
    pool->part = part;
    pool->context = context;
    pool->count = pool->left = count;
    pool->finished = 0;
    for (int i = 0; i < pool->threads; i++)
        pool->ranges[i] = (efl_range){count * i / pool->threads, count * (i + 1) / pool->threads};
    if (count == 2)
        pthread_cond_signal(&pool->work);
    else
        pthread_cond_broadcast(&pool->work);
    while (pool->left > 0) do_one(pool, 0);
    while (pool->finished < pool->count) pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

void efl_pool_free(efl_pool *pool) {
    if (pool == NULL) return;
    if (pool->process == getpid()) {
        pthread_mutex_lock(&pool->mutex);
        pool->ending = 1;
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
        for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
        pthread_mutex_destroy(&pool->mutex);
        pthread_cond_destroy(&pool->work);
        pthread_cond_destroy(&pool->done);
    }
    free(pool);
}
#else /* no operating system: one thread does it all */
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

void efl_pool_run(efl_pool *pool, int64_t count, efl_pool_part *part, void *context) {
    (void)pool;
    for (int64_t i = 0; i < count; i++) part(context, 0, i);
}

void efl_pool_free(efl_pool *pool) {
    free(pool);
}
#endif
