/* guard: a plugin of mosquitto 2.0 that forbids what an acl_file can't: retained messages, subscriptions by wildcard,
   long messages, and more messages, bytes and topics than a device of the federation has any use for. It disconnects
   clients that are revoked.

   mosquitto asks its plugins before its ACL file. The guard answers "denied", or leaves the question to the file
   (MOSQ_ERR_PLUGIN_DEFER); it never answers "granted", which would end the questions. What is denied costs its sender
   the message. A client beyond its budgets also loses its connection: an honest one comes back after a pause and sends
   again, while one whose messages just vanished would take that for a mistake in the ACL.

   options.c reads plugin_opt_*; rules.c knows what each role may do; accounts.c counts what a client has used; denied.c
   has the revoked names. mosquitto calls everything here from one thread. */
#include "options.h"

#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mosquitto.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LOOK_EVERY_MS 400

typedef struct {
    mosquitto_plugin_id_t *id;
    guard_options options;
    guard_accounts accounts;
    guard_denied denied;
    int64_t looked_ms, complained_ms; /* at the file of revoked names, and of it */
    int64_t full_ms, nameless_ms; /* when the log last spoke of too many clients, and of one without a good name */
    bool kicks_due; /* some account has `kick` set */
} guard;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- questions */

/* What an account has left decides; the aggregator has no budgets. */
static guard_reason charge_publish(guard_account *account, const guard_topic *topic, uint32_t bytes) {
    if (topic->kind == TOPIC_STATUS && !account_take(account, BUDGET_STATUSES, 1.0)) return TOO_FAST;
    if (topic->kind == TOPIC_UPDATE && !account_take_round(account, topic->round)) return TOO_MANY_ROUNDS;
    return account_take(account, BUDGET_BYTES_UP, bytes) ? OK : TOO_MUCH;
}

static guard_reason publish(const guard *g, guard_role role, guard_account *account,
                            const struct mosquitto_evt_acl_check *asked) {
    if (role != ROLE_AGGREGATOR && !account_take(account, BUDGET_MESSAGES, 1.0)) return TOO_FAST;
    guard_topic topic = read_topic(g->options.limits.base, asked->topic);
    guard_reason reason = check_publish(&g->options.limits, role, account->user, &topic, asked->payloadlen,
                                        asked->retain);
    if (reason != OK || role == ROLE_AGGREGATOR) return reason;
    return charge_publish(account, &topic, asked->payloadlen);
}

static guard_reason subscribe(const guard *g, guard_role role, guard_account *account,
                              const struct mosquitto_evt_acl_check *asked) {
    if (role != ROLE_AGGREGATOR && !account_take(account, BUDGET_MESSAGES, 1.0)) return TOO_FAST;
    int held = mosquitto_client_sub_count(asked->client);
    return check_subscribe(&g->options.limits, role, account->user, asked->topic, held);
}

static guard_reason receive(guard_role role, guard_account *account, const struct mosquitto_evt_acl_check *asked) {
    return role == ROLE_AGGREGATOR || account_take(account, BUDGET_BYTES_DOWN, asked->payloadlen) ? OK : TOO_MUCH;
}

static guard_reason judge(guard *g, guard_role role, guard_account *account,
                          const struct mosquitto_evt_acl_check *asked) {
    if (denied_has(&g->denied, account->user)) return REVOKED;
    switch (asked->access) {
    case MOSQ_ACL_WRITE: return publish(g, role, account, asked);
    case MOSQ_ACL_SUBSCRIBE: return subscribe(g, role, account, asked);
    case MOSQ_ACL_READ: return receive(role, account, asked);
    default: return OK;
    }
}

/* What is denied may end the connection: at the next tick, since mosquitto still uses it. */
static guard_kick kick_for(guard_reason reason) {
    switch (reason) {
    case REVOKED: return KICK_REVOKED;
    case TOO_FAST:
    case TOO_MUCH:
    case TOO_MANY_ROUNDS: return KICK_WITH_WILL;
    default: return KICK_NOT;
    }
}

static const char *access_text(int access) {
    return access == MOSQ_ACL_WRITE ? "publish" : access == MOSQ_ACL_SUBSCRIBE ? "subscribe" : "receive";
}

/* Whether a minute has passed since `*last`; then it is now. */
static bool due(int64_t *last, int64_t now) {
    if (now - *last < LOG_EVERY_MS) return false;
    *last = now;
    return true;
}

/* A client that has no account, since its name is no client's or there is no room, is denied everything. */
static int without_account(guard *g, guard_role role, int64_t now) {
    if (role == ROLE_NOBODY) {
        if (due(&g->nameless_ms, now))
            mosquitto_log_printf(MOSQ_LOG_WARNING, "guard: denied: %s", REASON_TEXT[NO_NAME]);
    } else if (due(&g->full_ms, now)) {
        mosquitto_log_printf(MOSQ_LOG_ERR, "guard: more than %u clients, others are denied: raise plugin_opt_clients",
                             (unsigned)g->accounts.most);
    }
    return MOSQ_ERR_ACL_DENIED;
}

static void note_denial(guard *g, guard_account *account, guard_reason reason, int access, int64_t now) {
    guard_kick kick = kick_for(reason);
    if (kick > account->kick) account->kick = kick;
    g->kicks_due = g->kicks_due || kick != KICK_NOT;
    uint64_t count = account_denied(account, now);
    if (count == 0) return;
    mosquitto_log_printf(MOSQ_LOG_WARNING, "guard: %s: denied %" PRIu64 " times; now to %s: %s", account->user, count,
                         access_text(access), REASON_TEXT[reason]);
}

static int on_acl_check(int event, void *event_data, void *userdata) {
    (void)event;
    guard *g = userdata;
    const struct mosquitto_evt_acl_check *asked = event_data;
    const char *user = mosquitto_client_username(asked->client);
    guard_role role = role_of(user);
    int64_t now = now_ms();
    guard_account *account = role == ROLE_NOBODY ? NULL : accounts_find(&g->accounts, user, now);
    if (!account) return without_account(g, role, now);
    guard_reason reason = judge(g, role, account, asked);
    if (reason == OK) return MOSQ_ERR_PLUGIN_DEFER;
    note_denial(g, account, reason, asked->access, now);
    return MOSQ_ERR_ACL_DENIED;
}

/* A client with a password, before mosquitto looks at the password. In MQTT 3.1.1 a clean session ends with the
   connection; in MQTT 5 it need not, and mosquitto does not tell. */
static int on_basic_auth(int event, void *event_data, void *userdata) {
    (void)event, (void)userdata;
    const struct mosquitto_evt_basic_auth *asked = event_data;
    struct mosquitto *client = asked->client;
    bool ends = mosquitto_client_protocol_version(client) < 5 && mosquitto_client_clean_session(client);
    return may_connect(asked->username, mosquitto_client_id(client), ends) ? MOSQ_ERR_PLUGIN_DEFER : MOSQ_ERR_AUTH;
}

/* ---- clients that lose their connections */

static void kick_all_revoked(const guard *g) {
    for (size_t i = 0; i < g->denied.count; i++) mosquitto_kick_client_by_username(g->denied.names[i], false);
}

static void kick_marked(guard *g) {
    g->kicks_due = false; /* a will that is sent here may mark others, for the next tick */
    for (uint32_t slot = 0; slot < g->accounts.slot_count; slot++) {
        for (guard_account *one = g->accounts.slots[slot]; one; one = one->next) {
            if (one->kick == KICK_NOT) continue;
            mosquitto_kick_client_by_username(one->user, one->kick == KICK_WITH_WILL);
            one->kick = KICK_NOT;
        }
    }
}

static void look_at_denied(guard *g, int64_t now) {
    const char *why = "";
    switch (denied_look(&g->denied, &why)) {
    case DENIED_SAME: return;
    case DENIED_READ:
        mosquitto_log_printf(MOSQ_LOG_NOTICE, "guard: %zu revoked names in %s", g->denied.count, g->denied.path);
        kick_all_revoked(g);
        return;
    case DENIED_FAILED:
        if (!due(&g->complained_ms, now)) return;
        mosquitto_log_printf(MOSQ_LOG_ERR, "guard: %s: %s; the %zu names read before stay revoked", g->denied.path, why,
                             g->denied.count);
    }
}

static int on_tick(int event, void *event_data, void *userdata) {
    (void)event, (void)event_data;
    guard *g = userdata;
    int64_t now = now_ms();
    if (now - g->looked_ms >= LOOK_EVERY_MS) {
        g->looked_ms = now;
        look_at_denied(g, now);
    }
    if (g->kicks_due) kick_marked(g);
    return MOSQ_ERR_SUCCESS;
}

/* ---- the plugin: three functions that mosquitto finds by name; all others are hidden */

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int mosquitto_plugin_version(int count, const int *versions) {
    for (int i = 0; i < count; i++) {
        if (versions[i] == MOSQ_PLUGIN_VERSION) return MOSQ_PLUGIN_VERSION;
    }
    return -1;
}

static int fail(guard *g, const char *why) {
    mosquitto_log_printf(MOSQ_LOG_ERR, "guard: %s", why);
    accounts_close(&g->accounts);
    denied_close(&g->denied);
    options_close(&g->options);
    free(g);
    return MOSQ_ERR_INVAL;
}

EXPORTED int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **userdata, struct mosquitto_opt *options,
                                   int count) {
    guard *g = calloc(1, sizeof *g);
    if (!g) return MOSQ_ERR_NOMEM;
    char why[OPTION_ERROR_BYTES];
    if (!options_read(&g->options, options, count, why)) return fail(g, why);
    for (int i = 0; i < BUDGETS; i++) g->accounts.rates[i] = g->options.rates[i];
    if (!accounts_open(&g->accounts, g->options.clients)) return fail(g, "out of memory");
    g->denied.path = g->options.denied;
    const char *wrong = "";
    if (denied_read(&g->denied, &wrong) == DENIED_FAILED) {
        snprintf(why, sizeof why, "%s: %s: `edgefl keys` writes it, copy it here", g->denied.path, wrong);
        return fail(g, why);
    }
    g->id = id;
    g->complained_ms = g->full_ms = g->nameless_ms = -LOG_EVERY_MS;
    if (mosquitto_callback_register(id, MOSQ_EVT_ACL_CHECK, on_acl_check, NULL, g) != MOSQ_ERR_SUCCESS ||
        mosquitto_callback_register(id, MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL, g) != MOSQ_ERR_SUCCESS ||
        mosquitto_callback_register(id, MOSQ_EVT_TICK, on_tick, NULL, g) != MOSQ_ERR_SUCCESS) {
        return fail(g, "this mosquitto has no plugins of its version: 2.0 or later is needed");
    }
    mosquitto_log_printf(MOSQ_LOG_NOTICE, "guard: keeps %s; %zu revoked names", g->options.limits.base,
                         g->denied.count);
    *userdata = g;
    return MOSQ_ERR_SUCCESS;
}

EXPORTED int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int count) {
    (void)options, (void)count;
    guard *g = userdata;
    if (!g) return MOSQ_ERR_SUCCESS;
    mosquitto_callback_unregister(g->id, MOSQ_EVT_ACL_CHECK, on_acl_check, NULL);
    mosquitto_callback_unregister(g->id, MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL);
    mosquitto_callback_unregister(g->id, MOSQ_EVT_TICK, on_tick, NULL);
    accounts_close(&g->accounts);
    denied_close(&g->denied);
    options_close(&g->options);
    free(g);
    return MOSQ_ERR_SUCCESS;
}
