/* arena.c: one block of memory for everything that a step of training touches, laid out by liveness.
 *
 * Time runs over one step: the input is there at 0, node i of N goes forward at i + 1, and turn t of the backward pass
 * (recompute.c) is at N + 1 + t. A block lives from the time it is first written to the time it is last read; blocks
 * that never live at once share memory.
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

enum { NONE = -1, ALWAYS = INT32_MAX, LINE = 64 /* of the cache; loads across two cost more */ };

typedef struct {
    int from, to;           /* the first and last time it is needed */
    int64_t bytes, content; /* rounded up; as requested */
    int64_t offset;
    int number, next; /* next: of those that are placed, by their offsets */
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
    *block = (efl_block){.from = from,
                         .to = to,
                         .bytes = (bytes + LINE - 1) & ~(int64_t)(LINE - 1),
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

/* When a storage or what forward saved is first written and last read, when it is so where it is computed again, and
 * when its gradient is. */
typedef struct {
    int from, to, late_from, late_to, gradient_from, gradient_to;
} efl_life;

static void reach(int *to, int time) {
    if (time > *to) *to = time;
}

static void since(int *from, int time) {
    if (time < *from) *from = time;
}

static void trace_forward(const efl_net *net, efl_life *life) {
    for (int i = 0; i < net->num_steps; i++) {
        const efl_step *step = &net->steps[i];
        reach(&life[net->values[i + 1].storage].to, i + 1);
        if (step->op->flags & EFL_ALIAS) continue;
        for (int k = 0; k < step->node.num_inputs; k++)
            reach(&life[net->values[step->node.inputs[k]].storage].to, i + 1);
    }
}

static void read_late(const efl_net *net, efl_life *life, int value, int time) {
    const int owner = net->values[value].storage;
    reach(net->values[owner].dropped ? &life[owner].late_to : &life[owner].to, time);
}

/* Whether what forward saved is written again; the little that does not grow with the batch is kept. */
static int saves_again(const efl_step *step) {
    return step->shapes.saved.per_sample > 0;
}

static void trace_again(const efl_net *net, efl_life *life, int i, int time) {
    const efl_step *step = &net->steps[i];
    efl_life *saved = &life[net->num_values + i];
    since(&life[net->values[i + 1].storage].late_from, time);
    read_late(net, life, i + 1, time);
    for (int k = 0; k < step->node.num_inputs; k++) read_late(net, life, step->node.inputs[k], time);
    if (saves_again(step)) since(&saved->late_from, time);
}

static void trace_backward(const efl_net *net, efl_life *life, int i, int time) {
    const efl_step *step = &net->steps[i];
    efl_life *saved = &life[net->num_values + i];
    reach(saved->late_from < ALWAYS ? &saved->late_to : &saved->to, time);
    if (step->flags & EFL_READS_Y) read_late(net, life, i + 1, time);
    reach(&life[net->values[i + 1].storage].gradient_to, time);
    for (int k = 0; k < step->node.num_inputs; k++) {
        efl_life *owner = &life[net->values[step->node.inputs[k]].storage];
        if (step->flags & EFL_READS_X) read_late(net, life, step->node.inputs[k], time);
        since(&owner->gradient_from, time);
        reach(&owner->gradient_to, time);
    }
}

/* life (num_values + num_steps): of the storages, then of what each step saves. */
static void trace_lives(const efl_net *net, efl_life *life) {
    const int n = net->num_steps;
    for (int v = 0; v < net->num_values + n; v++) {
        const int time = v < net->num_values ? v : v - net->num_values;
        life[v] = (efl_life){
            .from = time, .to = v < net->num_values ? time : time + 1, .late_from = ALWAYS, .gradient_from = ALWAYS};
    }
    trace_forward(net, life);
    for (int t = 0; t < net->num_turns; t++) {
        if (net->turns[t].again)
            trace_again(net, life, net->turns[t].step, n + 1 + t);
        else
            trace_backward(net, life, net->turns[t].step, n + 1 + t);
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

/* Scratch lives while its op runs. */
static void want_scratch(efl_net *net, const efl_step *step, int64_t sums, int time, efl_blocks *all, float **where) {
    const efl_op_shapes *shapes = &step->shapes;
    const int64_t fixed = shapes->scratch.fixed + sums * shapes->sums.fixed;
    const int64_t per_sample = shapes->scratch.per_sample + sums * shapes->sums.per_sample;
    int64_t count;
    if (__builtin_mul_overflow(per_sample, net->batch, &count))
        all->too_large = 1;
    else
        want(all, time, time, count + fixed, 1, sizeof(float), where);
}

static void want_scratches(efl_net *net, efl_blocks *all) {
    for (int i = 0; i < net->num_steps; i++) want_scratch(net, &net->steps[i], 0, i + 1, all, &net->steps[i].scratch);
    for (int t = 0; t < net->num_turns; t++) {
        efl_turn *turn = &net->turns[t];
        const efl_node *node = &net->steps[turn->step].node;
        int trained = node->num_inputs > 1;
        for (int k = 0; k < node->num_params; k++) trained |= node->params[k] < net->num_trainable;
        want_scratch(net, &net->steps[turn->step], trained && !turn->again, net->num_steps + 1 + t, all,
                     &turn->scratch);
    }
}

static void want_everything(efl_net *net, const efl_life *life, efl_blocks *all) {
    const int n = net->num_steps;
    for (int v = 0; v < net->num_values; v++) {
        efl_value *value = &net->values[v];
        if (value->storage != v) continue;
        want(all, life[v].from, life[v].to, value->size, net->batch, sizeof(float), &value->data);
        want(all, life[v].late_from, life[v].late_to, value->size, net->batch, sizeof(float), &value->late);
        if (value->has_gradient)
            want(all, life[v].gradient_from, life[v].gradient_to, value->size, net->batch, sizeof(float),
                 &value->gradient);
    }
    for (int i = 0; i < n; i++) {
        efl_step *step = &net->steps[i];
        const efl_room *saved = &step->shapes.saved;
        const efl_life *kept = &life[net->num_values + i];
        int64_t count;
        if (__builtin_mul_overflow(saved->per_sample, net->batch, &count)) {
            all->too_large = 1;
            continue;
        }
        want(all, kept->from, kept->to, count + saved->fixed, 1, sizeof(float), &step->saved);
        want(all, kept->late_from, kept->late_to, count + saved->fixed, 1, sizeof(float), &step->late_saved);
    }
    want_scratches(net, all);
    want(all, 0, ALWAYS, spare_size(net), net->batch, sizeof(float), &net->spare);
    for (int h = 0; h < net->num_heads; h++) {
        efl_head *head = &net->heads[h];
        if (head->kind->takes_labels)
            want(all, 0, ALWAYS, head->terms, net->batch, sizeof(int64_t), &head->labels);
        else
            want(all, 0, ALWAYS, head->terms, net->batch, sizeof(float), &head->targets);
    }
}

/* Each block goes up past the placed ones that it overlaps. These are linked by their offsets, so one walk finds the
 * lowest gap: a plan from a network may have thousands of blocks, and is laid out once for each plan of recompute.c. */
static int64_t place(efl_blocks *all) {
    efl_block *blocks = all->blocks;
    int64_t used = 0;
    int lowest = NONE;
    qsort(blocks, (size_t)all->count, sizeof *blocks, larger_first);
    for (int i = 0; i < all->count; i++) {
        efl_block *block = &blocks[i];
        for (int j = lowest; j != NONE && blocks[j].offset < block->offset + block->bytes; j = blocks[j].next) {
            const efl_block *other = &blocks[j];
            if (other->to < block->from || block->to < other->from) continue;
            if (block->offset < other->offset + other->bytes) block->offset = other->offset + other->bytes;
        }
        int *link = &lowest;
        while (*link != NONE && blocks[*link].offset < block->offset) link = &blocks[*link].next;
        block->next = *link;
        *link = i;
        if (block->offset + block->bytes > used) used = block->offset + block->bytes;
    }
    return used;
}

/* AddressSanitizer's layout; the plan of what to keep is the same as elsewhere. */
static int64_t place_apart(efl_blocks *all) {
    for (int i = 0; i < all->count; i++) {
        efl_block *block = &all->blocks[i];
        *block = (efl_block){.to = ALWAYS,
                             .bytes = block->bytes + GAP,
                             .content = block->content,
                             .number = block->number,
                             .where = block->where};
    }
    return place(all);
}

/* Where nothing is computed again, backward reads what forward wrote. */
static void join_lives(efl_net *net) {
    for (int v = 0; v < net->num_values; v++)
        if (net->values[v].late == NULL) net->values[v].late = net->values[v].data;
    for (int i = 0; i < net->num_steps; i++)
        if (net->steps[i].late_saved == NULL) net->steps[i].late_saved = net->steps[i].saved;
}

static int hand_out(efl_net *net, efl_blocks *all, int64_t max_arena_bytes, efl_error *error) {
    if (max_arena_bytes > 0 && net->arena_bytes > max_arena_bytes)
        return efl_fail(error, EFL_MEMORY,
                        "the model needs %lld bytes to train, %lld are allowed: lower batch or raise max_arena_bytes",
                        (long long)net->arena_bytes, (long long)max_arena_bytes);
    const int64_t size = SHARING ? net->arena_bytes : place_apart(all);
    const int fits = (uint64_t)size <= SIZE_MAX - LINE; /* in 32 bits, what is left of a larger size would be had */
    net->arena = fits ? calloc(1, (size_t)size + LINE) : NULL;
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
    join_lives(net);
    return EFL_OK;
}

/* The caller frees all->blocks, also after an error. */
static int lay_out(efl_net *net, efl_blocks *all, efl_error *error) {
    const size_t values = (size_t)net->num_values, steps = (size_t)net->num_steps;
    efl_life *life = calloc(values + steps, sizeof *life);
    all->blocks = calloc(3 * values + 5 * steps + 4 + EFL_MAX_LOSSES, sizeof *all->blocks);
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
