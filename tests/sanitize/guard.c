/* guard.c: the broker's guard without mosquitto, for AddressSanitizer: mosquitto's functions are stood in for here. It
 * tries options, rules, budgets and the list of revoked names, then a million questions of random topics and sizes.
 * Whatever is asked, the answer is "denied" or "ask the ACL file".
 */
#include "../../broker/guard/accounts.h"
#include "../../broker/guard/denied.h"

#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mosquitto.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define CHECK(what)                                                    \
    do {                                                               \
        if (!(what)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                   \
        }                                                              \
    } while (0)

/* ---- mosquitto */

struct mosquitto {
    const char *user;
    int subscriptions;
};

static MOSQ_FUNC_generic_callback ask_acl, ask_auth, tick;
static void *plugin_data;
static int kicked, lines;

int mosquitto_callback_register(mosquitto_plugin_id_t *id, int event, MOSQ_FUNC_generic_callback function,
                                const void *data, void *userdata) {
    (void)id, (void)data;
    if (event == MOSQ_EVT_ACL_CHECK) ask_acl = function;
    if (event == MOSQ_EVT_BASIC_AUTH) ask_auth = function;
    if (event == MOSQ_EVT_TICK) tick = function;
    plugin_data = userdata;
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_callback_unregister(mosquitto_plugin_id_t *id, int event, MOSQ_FUNC_generic_callback function,
                                  const void *data) {
    (void)id, (void)event, (void)function, (void)data;
    return MOSQ_ERR_SUCCESS;
}

void mosquitto_log_printf(int level, const char *format, ...) {
    char line[1000];
    va_list arguments;
    (void)level;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    lines++;
}

const char *mosquitto_client_username(const struct mosquitto *client) {
    return client->user;
}

const char *mosquitto_client_id(const struct mosquitto *client) {
    return client->user;
}

int mosquitto_client_protocol_version(const struct mosquitto *client) {
    return client->subscriptions == 2 ? 5 : 4;
}

bool mosquitto_client_clean_session(const struct mosquitto *client) {
    return client->subscriptions != 1;
}

int mosquitto_client_sub_count(const struct mosquitto *client) {
    return client->subscriptions;
}

int mosquitto_kick_client_by_username(const char *user, bool with_will) {
    CHECK(user && with_will == (strcmp(user, "b") != 0));
    kicked++;
    return MOSQ_ERR_SUCCESS;
}

/* ---- rules */

static const guard_limits LIMITS = {.base = "edgefl/2/f", .part_bytes = 1000, .status_bytes = 100, .subscriptions = 10};

static void try_names(void) {
    static const char *const BAD[] = {"", "+", "#", "a/b", "agg-f", "-a", ".", "a b", "d\xc3\xa9", "a+", NULL};
    for (int i = 0; i < COUNT(BAD); i++) CHECK(role_of(BAD[i]) == ROLE_NOBODY);
    char name[70];
    memset(name, 'a', sizeof name);
    name[64] = '\0';
    CHECK(role_of(name) == ROLE_DEVICE);
    name[64] = 'a', name[65] = '\0';
    CHECK(role_of(name) == ROLE_NOBODY);
    CHECK(role_of("aggregator") == ROLE_AGGREGATOR && role_of("viewer-a") == ROLE_VIEWER);
    CHECK(role_of("batch-0a") == ROLE_BATCH && may_connect("a", "b", false));
    CHECK(may_connect("batch-0a", "batch-1f", true) && !may_connect("batch-0a", "batch-1f", false));
    CHECK(may_connect("batch-0a", "batch-0123456789abcdef", true));
    static const char *const BAD_ID[] = {"a", "batch", "batch-x", "batch-0123456789abcdef0", NULL};
    for (int i = 0; i < COUNT(BAD_ID); i++) CHECK(!may_connect("batch-0a", BAD_ID[i], true));
    CHECK(role_of("helper-a") == ROLE_HELPER && role_of("aggregators") == ROLE_DEVICE);
}

static guard_kind kind(const char *topic) {
    return read_topic(LIMITS.base, topic).kind;
}

static void try_topics(void) {
    CHECK(kind("edgefl/2/f/model/65535/65534") == TOPIC_MODEL && kind("edgefl/2/f/model/65536/0") == TOPIC_OTHER);
    CHECK(kind("edgefl/2/f/d/a/u/4294967295/0") == TOPIC_UPDATE);
    CHECK(read_topic(LIMITS.base, "edgefl/2/f/d/a/u/4294967295/0").round == 4294967295u);
    static const char *const OTHER[] = {
        "d/a/u/4294967296/0",
        "d/a/u/18446744073709551617/0",
        "d/a/u/01/0",
        "d/a/u/1/65535",
        "d/a/u/1",
        "d/a/u/1/",
        "d/a/u/1/0/",
        "d/a/u/-1/0",
        "d/a/u/+/0",
        "d/a/u/ 1/0",
        "d/a/statuses",
        "d/a",
        "d/",
        "d//status",
        "d/+/status",
        "",
        "manifest/",
        "model/0",
        "model/0/0/0",
        "fleet/",
        "fleet/+",
        "helper/h/answer/",
        "helper/h/answer/x",
        "helper/h/ask",
        "helper/h/ask/",
        "helper/h/ask/01",
        "#",
    };
    char topic[100];
    for (int i = 0; i < COUNT(OTHER); i++) {
        snprintf(topic, sizeof topic, "edgefl/2/f/%s", OTHER[i]);
        CHECK(kind(topic) == TOPIC_OTHER);
    }
    static const char *const FOREIGN[] = {"edgefl/2/f", "edgefl/2/ff/round", "edgefl/2", "", "$SYS/x", "+/2/f/round"};
    for (int i = 0; i < COUNT(FOREIGN); i++) CHECK(kind(FOREIGN[i]) == TOPIC_FOREIGN);
}

static guard_reason publish(const char *user, const char *topic, uint32_t bytes, bool retain) {
    guard_topic read = read_topic(LIMITS.base, topic);
    return check_publish(&LIMITS, role_of(user), user, &read, bytes, retain);
}

static guard_reason subscribe(const char *user, const char *filter, int held) {
    return check_subscribe(&LIMITS, role_of(user), user, filter, held);
}

static void try_rules(void) {
    CHECK(publish("a", "edgefl/2/f/d/a/status", 100, true) == OK);
    CHECK(publish("a", "edgefl/2/f/d/a/status", 101, true) == TOO_LONG);
    CHECK(publish("a", "edgefl/2/f/d/a/u/1/0", 1000, false) == OK);
    CHECK(publish("a", "edgefl/2/f/d/a/u/1/0", 1001, false) == TOO_LONG);
    CHECK(publish("a", "edgefl/2/f/d/a/u/1/0", 0, true) == RETAINED);
    CHECK(publish("a", "edgefl/2/f/d/ab/status", 1, true) == WRONG_TOPIC);
    CHECK(publish("ab", "edgefl/2/f/d/a/status", 1, true) == WRONG_TOPIC);
    CHECK(publish("aggregator", "edgefl/2/f/d/a/junk", 0, true) == OK);
    CHECK(publish("aggregator", "edgefl/2/f/d/a/junk", 1, true) == WRONG_TOPIC);
    CHECK(publish("aggregator", "edgefl/2/g/d/a/junk", 0, true) == WRONG_TOPIC);
    CHECK(subscribe("a", "edgefl/2/f/model/0/0", 9) == OK && subscribe("a", "edgefl/2/f/round", 10) == TOO_MANY_SUBS);
    CHECK(subscribe("a", "edgefl/2/f/d/a/inbox", 0) == OK && subscribe("a", "edgefl/2/f/d/+/inbox", 0) == WRONG_TOPIC);
    CHECK(subscribe("viewer-a", "edgefl/2/f/d/+/status", 0) == OK && subscribe("viewer-a", "#", 0) == WRONG_TOPIC);
    CHECK(subscribe("helper-h", "edgefl/2/f/helper/helper-h/ask/+", 0) == OK);
    CHECK(subscribe("helper-h", "edgefl/2/f/helper/helper-h/ask/+", 10) == TOO_MANY_SUBS);
    CHECK(subscribe("helper-h", "edgefl/2/f/helper/helper-i/ask/+", 0) == WRONG_TOPIC);
    CHECK(subscribe("helper-h", "edgefl/2/f/helper/helper-h/ask/+/", 0) == WRONG_TOPIC);
    CHECK(subscribe("helper-h", "edgefl/2/f/helper/+/ask/+", 0) == WRONG_TOPIC);
    CHECK(subscribe("a", "edgefl/2/f/helper/a/ask/+", 0) == WRONG_TOPIC);
    CHECK(publish("helper-h", "edgefl/2/f/helper/helper-h/answer/0", 1000, false) == OK);
    CHECK(publish("helper-h", "edgefl/2/f/helper/helper-h/answer/0", 1, true) == RETAINED);
    CHECK(publish("aggregator", "edgefl/2/f/helper/helper-h/ask/0", 1, false) == OK);
    CHECK(publish("aggregator", "edgefl/2/f/helper/helper-h/answer/0", 1, false) == WRONG_TOPIC);
    CHECK(subscribe("aggregator", "edgefl/2/f/#", 99) == OK && subscribe("aggregator", "#", 0) == WRONG_TOPIC);
}

/* ---- budgets */

static void try_accounts(void) {
    guard_accounts accounts;
    CHECK(accounts_open(&accounts, 100));
    for (int i = 0; i < BUDGETS; i++) accounts.rates[i] = (guard_rate){10.0, 20.0};
    guard_account *one = accounts_find(&accounts, "a", 0);
    for (int i = 0; i < 20; i++) CHECK(account_take(one, BUDGET_MESSAGES, 1.0));
    CHECK(!account_take(one, BUDGET_MESSAGES, 1.0) && account_take(one, BUDGET_BYTES_UP, 20.0));
    one = accounts_find(&accounts, "a", 100);
    CHECK(account_take(one, BUDGET_MESSAGES, 1.0) && !account_take(one, BUDGET_MESSAGES, 1.0));
    for (uint32_t round = 0; round < 20; round++)
        CHECK(account_take_round(one, round) && account_take_round(one, round));
    CHECK(!account_take_round(one, 20) && account_take_round(one, 12) && !account_take_round(one, 11));
    CHECK(account_denied(one, 100) == 1 && account_denied(one, 60099) == 0 && account_denied(one, 60100) == 2);
    char name[20];
    for (int i = 1; i < 200; i++) {
        snprintf(name, sizeof name, "a%d", i);
        CHECK((accounts_find(&accounts, name, 60100) != NULL) == (i < 100));
    }
    CHECK(accounts.count == 100);
    CHECK(accounts_find(&accounts, "b", 60100 + IDLE_MS + 1) && accounts.count == 1);
    accounts_close(&accounts);
}

/* ---- the list of revoked names */

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void try_denied(const char *path) {
    guard_denied denied = {.path = path};
    const char *why = NULL;
    (void)remove(path);
    CHECK(denied_read(&denied, &why) == DENIED_FAILED && denied_look(&denied, &why) == DENIED_FAILED && why);
    write_file(path, "b\na\r\n\nviewer-c");
    CHECK(denied_look(&denied, &why) == DENIED_SAME && denied.count == 0);
    CHECK(denied_look(&denied, &why) == DENIED_READ && denied.count == 3);
    CHECK(denied_look(&denied, &why) == DENIED_SAME);
    CHECK(denied_has(&denied, "a") && denied_has(&denied, "b") && denied_has(&denied, "viewer-c"));
    CHECK(!denied_has(&denied, "c") && !denied_has(&denied, ""));
    char line[200];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\0';
    static const char *const BAD[] = {"a\n+\n", "a/b\n", "\x01\n"};
    for (int i = 0; i <= COUNT(BAD); i++) {
        write_file(path, i < COUNT(BAD) ? BAD[i] : line);
        CHECK(denied_look(&denied, &why) == DENIED_SAME && denied_look(&denied, &why) == DENIED_FAILED);
        CHECK(denied.count == 3 && denied_has(&denied, "a"));
    }
    CHECK(remove(path) == 0 && denied_look(&denied, &why) == DENIED_FAILED && denied_has(&denied, "b"));
    denied_close(&denied);
}

/* ---- the plugin */

static uint64_t state = 1;

static uint32_t draw(uint32_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % bound;
}

static void draw_topic(char *out, size_t size) {
    static const char *const PIECES[] = {
        "edgefl/2/f/", "edgefl/2/", "d/",         "a",       "b",
        "/",           "/u/",       "status",     "inbox",   "model/",
        "0",           "1/0",       "4294967295", "65535",   "99999999999999999999",
        "+",           "#",         "manifest",   "helper/", "helper-h",
        "enrol/",      "batch-0a",  "/ask",       "/answer", "/answer/",
        "$share/g/",   "\xc3\xa9",
    };
    size_t used = (size_t)snprintf(out, size, "%s", draw(4) ? "edgefl/2/f/" : "");
    for (uint32_t left = draw(8); left > 0; left--) {
        int more = snprintf(out + used, size - used, "%s", PIECES[draw(COUNT(PIECES))]);
        if (more < 0 || (size_t)more >= size - used) break;
        used += (size_t)more;
    }
}

static void try_plugin(char *path) {
    struct mosquitto_opt options[] = {
        {"base", "edgefl/2/f"},
        {"denied", path},
        {"part_bytes", "1000"},
        {"status_bytes", "1024"},
        {"messages_per_s", "1000000"},
        {"messages_at_once", "100000000"},
        {"statuses_per_s", "1000000"},
        {"statuses_at_once", "100000000"},
        {"bytes_per_s", "4294967295"},
        {"bytes_at_once", "4294967295"},
        {"subscriptions", "10"},
        {"rounds_per_minute", "1000000"},
        {"clients", "7"},
    };
    static const char *const USERS[] = {"aggregator", "a", "b",     "c", "helper-h", "batch-0a",
                                        "viewer-v",   "+", "agg-f", "",  NULL};
    int versions[] = {5};
    void *data = NULL;
    CHECK(mosquitto_plugin_version(1, versions) == 5 && mosquitto_plugin_version(0, versions) == -1);
    write_file(path, "b\n");
    for (int i = 0; i < COUNT(options); i++) { /* without any of them, and with a senseless one, it does not start */
        struct mosquitto_opt kept = options[i];
        options[i] = options[(i + 1) % COUNT(options)];
        CHECK(mosquitto_plugin_init(NULL, &data, options, COUNT(options)) != MOSQ_ERR_SUCCESS);
        options[i] = (struct mosquitto_opt){kept.key, "-1"};
        CHECK(mosquitto_plugin_init(NULL, &data, options, COUNT(options)) != MOSQ_ERR_SUCCESS);
        options[i] = kept;
    }
    CHECK(mosquitto_plugin_init(NULL, &data, options, COUNT(options)) == MOSQ_ERR_SUCCESS && data == plugin_data);
    struct mosquitto someone = {"a", 0}, one_of_many = {"batch-0a", 0};
    struct mosquitto_evt_basic_auth stolen = {.client = &someone, .username = "batch-0a", .password = "x"};
    struct mosquitto_evt_basic_auth own_id = {.client = &one_of_many, .username = "batch-0a", .password = "x"};
    CHECK(ask_auth(MOSQ_EVT_BASIC_AUTH, &stolen, data) == MOSQ_ERR_AUTH);
    CHECK(ask_auth(MOSQ_EVT_BASIC_AUTH, &own_id, data) == MOSQ_ERR_PLUGIN_DEFER);
    for (one_of_many.subscriptions = 1; one_of_many.subscriptions <= 2; one_of_many.subscriptions++)
        CHECK(ask_auth(MOSQ_EVT_BASIC_AUTH, &own_id, data) == MOSQ_ERR_AUTH);
    char topic[300];
    int deferred = 0;
    for (int i = 0; i < 1000000; i++) {
        struct mosquitto client = {USERS[draw(COUNT(USERS))], (int)draw(12)};
        static const int ACCESS[] = {MOSQ_ACL_READ, MOSQ_ACL_WRITE, MOSQ_ACL_SUBSCRIBE, MOSQ_ACL_UNSUBSCRIBE, 77};
        draw_topic(topic, sizeof topic);
        struct mosquitto_evt_acl_check asked = {.client = &client, .topic = topic, .access = ACCESS[draw(5)]};
        asked.payloadlen = draw(3) ? draw(1200) : (uint32_t)-1;
        asked.retain = draw(2);
        int answer = ask_acl(MOSQ_EVT_ACL_CHECK, &asked, data);
        CHECK(answer == MOSQ_ERR_ACL_DENIED || answer == MOSQ_ERR_PLUGIN_DEFER);
        CHECK(answer == MOSQ_ERR_ACL_DENIED || !client.user || strcmp(client.user, "b") != 0);
        deferred += answer == MOSQ_ERR_PLUGIN_DEFER;
        if (i % 1000 == 0) CHECK(tick(MOSQ_EVT_TICK, NULL, data) == MOSQ_ERR_SUCCESS);
    }
    printf("guard: %d deferred, %d kicked, %d lines\n", deferred, kicked, lines);
    CHECK(deferred > 50000 && deferred < 500000 && kicked > 500 && lines < 100);
    CHECK(mosquitto_plugin_cleanup(data, options, COUNT(options)) == MOSQ_ERR_SUCCESS && remove(path) == 0);
}

int main(int count, char **words) {
    CHECK(count == 2);
    try_names();
    try_topics();
    try_rules();
    try_accounts();
    try_denied(words[1]);
    try_plugin(words[1]);
    printf("guard: ok\n");
    return 0;
}
