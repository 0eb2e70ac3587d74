/* arena.c: one block of memory for everything that a step of training touches, laid out by liveness.
 *
 * Time runs over one step: the input is there at 0, node i of N goes forward at i + 1 and backward at 2N - i. A block
 * lives from the time it is first written to the time it is last read; blocks that never live at once share memory.
 * The largest are placed first, each at the lowest offset where it overlaps no block of its time.
 */
#include "net.h"

#include <stdlib.h>

/* AddressSanitizer sees one block; without sharing and with poisoned gaps it sees the arrays in it. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { GAP = 64, SHARING = 0 };
#else
enum { GAP = 0, SHARING = 1 };
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

enum { ALWAYS = INT32_MAX, LINE = 64 /* of the cache; loads across two cost more */ };

typedef struct {
    int from, to;           /* the first and last time it is needed */
    int64_t bytes, content; /* rounded up; as requested */
    int64_t offset;
    int number;
    void **where;
} efl_block;

typedef struct {
    efl_block *blocks;
    int count;
    int too_large;
} efl_blocks;

static void want(efl_blocks *all, int from, int to, int64_t count, int64_t batch, size_t width, void *where) {
    efl_block *block = &all->blocks[all->count];
    int64_t bytes = 0;
    if (count == 0 || to < from) return;
    if (__builtin_mul_overflow(count, batch, &bytes) || __builtin_mul_overflow(bytes, (int64_t)width, &bytes) ||
        bytes > (int64_t)1 << 50) {
        all->too_large = 1;
        return;
    }
    *block = (efl_block){.from = SHARING ? from : 0,
                         .to = SHARING ? to : ALWAYS,
                         .bytes = ((bytes + LINE - 1) & ~(int64_t)(LINE - 1)) + GAP,
                         .content = bytes,
                         .number = all->count,
                         .where = where};
    all->count++;
}

static int larger_first(const void *left, const void *right) {
    const efl_block *a = left, *b = right;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
    return a->number - b->number;
}

/* When each storage is first written and last read, and when its gradient is. */
typedef struct {
    int from, to, gradient_from, gradient_to;
} efl_life;

static void reach(int *to, int time) {
    if (time > *to) *to = time;
}

static void trace_lives(const efl_net *net, efl_life *life) {
    const int n = net->num_steps;
    for (int v = 0; v < net->num_values; v++) life[v] = (efl_life){.from = v, .to = v, .gradient_from = ALWAYS};
    for (int i = 0; i < n; i++) {
        const efl_step *step = &net->steps[i];
        const int made = net->values[i + 1].storage;
        reach(&life[made].to, i + 1);
        if (step->op->flags & EFL_ALIAS) continue;
        if (step->backward && step->op->flags & EFL_READS_Y) reach(&life[made].to, 2 * n - i);
        if (step->backward) reach(&life[made].gradient_to, 2 * n - i);
        for (int k = 0; k < step->node.num_inputs; k++) {
            const int owner = net->values[step->node.inputs[k]].storage;
            reach(&life[owner].to, i + 1);
            if (step->backward && step->op->flags & EFL_READS_X) reach(&life[owner].to, 2 * n - i);
            if (step->backward && 2 * n - i < life[owner].gradient_from) life[owner].gradient_from = 2 * n - i;
            if (step->backward) reach(&life[owner].gradient_to, 2 * n - i);
        }
    }
    for (int h = 0; h < net->num_heads; h++) {
        const int logits = net->values[net->heads[h].input].storage;
        reach(&life[logits].to, n);
        life[logits].gradient_from = n;
    }
    reach(&life[net->values[net->output].storage].to, n + 1);
}

static int64_t spare_size(const efl_net *net) {
    int64_t largest = 0;
    for (int i = 0; i < net->num_steps; i++) {
        int64_t size = 0;
        for (int k = 0; k < net->steps[i].node.num_inputs; k++) {
            const efl_value *value = &net->values[net->steps[i].node.inputs[k]];
            if (value->has_gradient && net->values[value->storage].readers > 1) size += value->size;
        }
        if (size > largest) largest = size;
    }
    return largest;
}

static void want_everything(efl_net *net, const efl_life *life, efl_blocks *all) {
    const int n = net->num_steps;
    efl_room scratch = {0, 0};
    for (int v = 0; v < net->num_values; v++) {
        efl_value *value = &net->values[v];
        if (value->storage != v) continue;
        want(all, life[v].from, life[v].to, value->size, net->batch, sizeof(float), &value->data);
        if (value->has_gradient)
            want(all, life[v].gradient_from, life[v].gradient_to, value->size, net->batch, sizeof(float),
                 &value->gradient);
    }
    for (int i = 0; i < n; i++) {
        efl_step *step = &net->steps[i];
        const efl_room *room = &step->shapes.scratch, *saved = &step->shapes.saved;
        if (room->per_sample > scratch.per_sample) scratch.per_sample = room->per_sample;
        if (room->fixed > scratch.fixed) scratch.fixed = room->fixed;
        int64_t count;
        if (__builtin_mul_overflow(saved->per_sample, net->batch, &count))
            all->too_large = 1;
        else
            want(all, i, step->backward ? 2 * n - i : i + 1, count + saved->fixed, 1, sizeof(float), &step->saved);
    }
    int64_t count;
    if (__builtin_mul_overflow(scratch.per_sample, net->batch, &count))
        all->too_large = 1;
    else
        want(all, 0, ALWAYS, count + scratch.fixed, 1, sizeof(float), &net->scratch);
    want(all, 0, ALWAYS, spare_size(net), net->batch, sizeof(float), &net->spare);
    for (int h = 0; h < net->num_heads; h++) {
        efl_head *head = &net->heads[h];
        if (head->kind->takes_labels)
            want(all, 0, ALWAYS, head->terms, net->batch, sizeof(int64_t), &head->labels);
        else
            want(all, 0, ALWAYS, head->terms, net->batch, sizeof(float), &head->targets);
    }
}

/* Moves each block up past the blocks that it overlaps until it overlaps none. */
static int64_t place(efl_blocks *all) {
    int64_t used = 0;
    qsort(all->blocks, (size_t)all->count, sizeof *all->blocks, larger_first);
    for (int i = 0; i < all->count; i++) {
        efl_block *block = &all->blocks[i];
        for (int moved = 1; moved;) {
            moved = 0;
            for (int j = 0; j < i; j++) {
                const efl_block *other = &all->blocks[j];
                if (other->to < block->from || block->to < other->from) continue;
                if (block->offset >= other->offset + other->bytes || other->offset >= block->offset + block->bytes)
                    continue;
                block->offset = other->offset + other->bytes;
                moved = 1;
            }
        }
        if (block->offset + block->bytes > used) used = block->offset + block->bytes;
    }
    return used;
}

static int hand_out(efl_net *net, const efl_blocks *all, int64_t max_arena_bytes, efl_error *error) {
    if (max_arena_bytes > 0 && net->arena_bytes > max_arena_bytes)
        return efl_fail(error, EFL_MEMORY,
                        "the model needs %lld bytes to train, %lld are allowed: lower batch or raise max_arena_bytes",
                        (long long)net->arena_bytes, (long long)max_arena_bytes);
    net->arena = calloc(1, (size_t)net->arena_bytes + LINE);
    if (net->arena == NULL)
        return efl_fail(error, EFL_MEMORY,
                        "no memory for the %lld bytes that the model needs to train: lower batch or the model",
                        (long long)net->arena_bytes);
    char *start = (char *)(((uintptr_t)net->arena + LINE - 1) & ~(uintptr_t)(LINE - 1));
    for (int i = 0; i < all->count; i++) {
        const efl_block *block = &all->blocks[i];
        *block->where = start + block->offset;
        ASAN_POISON_MEMORY_REGION((char *)*block->where + block->content, block->bytes - block->content);
    }
    return EFL_OK;
}

/* The caller frees all->blocks, also after an error. */
static int lay_out(efl_net *net, efl_blocks *all, efl_error *error) {
    efl_life *life = calloc((size_t)net->num_values, sizeof *life);
    all->blocks = calloc(2 * (size_t)net->num_values + (size_t)net->num_steps + 4 + EFL_MAX_LOSSES,
                         sizeof *all->blocks);
    if (all->blocks == NULL || life == NULL) {
        free(life);
        return efl_fail(error, EFL_MEMORY, "no memory to compile the plan: free some");
    }
    trace_lives(net, life);
    want_everything(net, life, all);
    net->arena_bytes = all->too_large ? INT64_MAX : place(all);
    free(life);
    return EFL_OK;
}

int efl_arena_measure(efl_net *net, efl_error *error) {
    efl_blocks all = {0};
    const int code = lay_out(net, &all, error);
    free(all.blocks);
    return code;
}

int efl_arena_make(efl_net *net, int64_t max_arena_bytes, efl_error *error) {
    efl_blocks all = {0};
    int code = lay_out(net, &all, error);
    if (code == EFL_OK && all.too_large)
        code = efl_fail(error, EFL_MEMORY, "the model is too large to train: lower batch or the model");
    if (code == EFL_OK) code = hand_out(net, &all, max_arena_bytes, error);
    free(all.blocks);
    return code;
}
