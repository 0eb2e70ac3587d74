/* accounts.h: what each client has used of its budgets, and when it was last complained about.

   Time is passed in, in milliseconds of a clock that never goes back. Memory is bounded: at most `most` accounts, of
   which those that were idle for ten minutes make room for others. */
#ifndef GUARD_ACCOUNTS_H
#define GUARD_ACCOUNTS_H

#include "rules.h"

#define ROUNDS_KEPT 8
#define LOG_EVERY_MS 60000
#define IDLE_MS 600000

/* A budget fills at `per_s` a second, up to `at_once`. */
typedef struct {
    double per_s, at_once;
} guard_rate;

typedef enum {
    BUDGET_MESSAGES,
    BUDGET_STATUSES,
    BUDGET_BYTES_UP,
    BUDGET_BYTES_DOWN,
    BUDGET_ROUNDS,
    BUDGETS
} guard_budget;

/* A revoked client's will is not published. */
typedef enum { KICK_NOT, KICK_WITH_WILL, KICK_REVOKED } guard_kick;

typedef struct guard_account {
    struct guard_account *next;
    double left[BUDGETS];
    int64_t filled_ms;                /* when the budgets were last filled */
    int64_t logged_ms;                /* when the log last named this client, -LOG_EVERY_MS: never */
    uint64_t denied;                  /* since then */
    uint32_t rounds[ROUNDS_KEPT];     /* the latest rounds that it sent updates of, a ring */
    uint8_t round_count, round_next;
    guard_kick kick; /* what becomes of its connection at the next tick */
    char user[NAME_MAX_BYTES + 1];
} guard_account;

typedef struct {
    guard_rate rates[BUDGETS];
    guard_account **slots; /* (slot_count,) chains */
    uint32_t slot_count, count, most;
    int64_t swept_ms;
} guard_accounts;

/* False: out of memory. `rates` are set by the caller. */
bool accounts_open(guard_accounts *accounts, uint32_t most);
void accounts_close(guard_accounts *accounts);

/* The account of `user`, which role_of has approved, with its budgets filled up to now; NULL if there is no room. */
guard_account *accounts_find(guard_accounts *accounts, const char *user, int64_t now_ms);

/* Whether `cost` was left in a budget; then it is taken. */
bool account_take(guard_account *account, guard_budget budget, double cost);

/* Whether updates of `round` are within the budget of rounds; one of the latest rounds costs nothing. */
bool account_take_round(guard_account *account, uint32_t round);

/* Count a denial. Returns how many there were since the log last named this client if a line is due, else 0. */
uint64_t account_denied(guard_account *account, int64_t now_ms);

#endif
