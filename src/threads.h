/* threads.h: a small pool of threads that share out the parts of one piece of work. What the parts are, and that they
 * depend on shapes alone, is ops/parts.h.
 *
 * A thread that waits looks out for some microseconds, and then sleeps until it is woken: an idle pool takes no time of
 * any core. Threads start with the first work and end with the pool. A process that was forked has none of its parent's
 * threads and starts its own.
 */
#ifndef EFL_THREADS_H
#define EFL_THREADS_H

typedef struct efl_pool efl_pool;

/* `slot` is the thread: 0 the caller's, below `threads`. */
typedef void efl_pool_part(void *context, int slot, int part);

/* For `threads` threads, the caller's among them; NULL without memory. */
efl_pool *efl_pool_new(int threads);
void efl_pool_free(efl_pool *pool);
/* Before the first efl_pool_run of a call: starts the threads that are not there. Where the system refuses one, there
 * are fewer. */
void efl_pool_start(efl_pool *pool);
/* Calls part(context, slot, 0..count-1), each once, in any order; returns when all have returned. */
enum { EFL_POOL_PARTS = 16 /* the largest count */ };
void efl_pool_run(efl_pool *pool, int count, efl_pool_part *part, void *context);

#endif
