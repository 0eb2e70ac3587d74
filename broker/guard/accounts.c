#include "accounts.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a. Names are those of certificates, so nobody chooses many that collide. */
static uint32_t hash(const char *text) {
    uint32_t h = 2166136261u;
    for (; *text; text++) h = (h ^ (uint8_t)*text) * 16777619u;
    return h;
}

bool accounts_open(guard_accounts *accounts, uint32_t most) {
    uint32_t slots = 64;
    while (slots < most && slots < (1u << 24)) slots *= 2;
    accounts->slots = calloc(slots, sizeof *accounts->slots);
    accounts->slot_count = slots;
    accounts->count = 0;
    accounts->most = most;
    accounts->swept_ms = -IDLE_MS;
    return accounts->slots != NULL;
}

/* Free the accounts that nobody has used since `before_ms`. */
static void sweep(guard_accounts *accounts, int64_t before_ms) {
    for (uint32_t slot = 0; slot < accounts->slot_count; slot++) {
        guard_account **link = &accounts->slots[slot];
        while (*link) {
            guard_account *one = *link;
            if (one->filled_ms < before_ms) {
                *link = one->next;
                free(one);
                accounts->count--;
            } else {
                link = &one->next;
            }
        }
    }
}

void accounts_close(guard_accounts *accounts) {
    if (accounts->slots) sweep(accounts, INT64_MAX);
    free(accounts->slots);
    accounts->slots = NULL;
}

static void fill(const guard_accounts *accounts, guard_account *account, int64_t now_ms) {
    double seconds = (double)(now_ms - account->filled_ms) / 1000.0;
    for (int i = 0; i < BUDGETS; i++) {
        double more = account->left[i] + seconds * accounts->rates[i].per_s;
        account->left[i] = more < accounts->rates[i].at_once ? more : accounts->rates[i].at_once;
    }
    account->filled_ms = now_ms;
}

static guard_account *open_account(guard_accounts *accounts, guard_account **slot, const char *user, int64_t now_ms) {
    if (accounts->count >= accounts->most && now_ms - accounts->swept_ms >= 1000) {
        accounts->swept_ms = now_ms;
        sweep(accounts, now_ms - IDLE_MS);
    }
    size_t bytes = strlen(user);
    if (accounts->count >= accounts->most || bytes > NAME_MAX_BYTES) return NULL;
    guard_account *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    memcpy(made->user, user, bytes);
    for (int i = 0; i < BUDGETS; i++) made->left[i] = accounts->rates[i].at_once;
    made->filled_ms = now_ms;
    made->logged_ms = now_ms - LOG_EVERY_MS;
    made->next = *slot;
    *slot = made;
    accounts->count++;
    return made;
}

guard_account *accounts_find(guard_accounts *accounts, const char *user, int64_t now_ms) {
    guard_account **slot = &accounts->slots[hash(user) & (accounts->slot_count - 1)];
    for (guard_account *one = *slot; one; one = one->next) {
        if (strcmp(one->user, user) == 0) {
            fill(accounts, one, now_ms);
            return one;
        }
    }
    return open_account(accounts, slot, user, now_ms);
}

bool account_take(guard_account *account, guard_budget budget, double cost) {
    if (account->left[budget] < cost) return false;
    account->left[budget] -= cost;
    return true;
}

bool account_take_round(guard_account *account, uint32_t round) {
    for (int i = 0; i < account->round_count; i++) {
        if (account->rounds[i] == round) return true;
    }
    if (!account_take(account, BUDGET_ROUNDS, 1.0)) return false;
    account->rounds[account->round_next] = round;
    account->round_next = (uint8_t)((account->round_next + 1) % ROUNDS_KEPT);
    if (account->round_count < ROUNDS_KEPT) account->round_count++;
    return true;
}

uint64_t account_denied(guard_account *account, int64_t now_ms) {
    account->denied++;
    if (now_ms - account->logged_ms < LOG_EVERY_MS) return 0;
    uint64_t count = account->denied;
    account->denied = 0;
    account->logged_ms = now_ms;
    return count;
}
