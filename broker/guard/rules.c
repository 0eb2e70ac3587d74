#include "rules.h"

#include <stdio.h>
#include <string.h>

const char *const REASON_TEXT[REASONS] = {
    [OK] = "nothing",
    [NO_NAME] = "a client whose name is no client's of the federation",
    [REVOKED] = "it is revoked",
    [WRONG_TOPIC] = "a topic that is not its own",
    [RETAINED] = "a retained message where none may be",
    [TOO_LONG] = "a message that is too long for its topic",
    [TOO_MANY_SUBS] = "too many subscriptions at a time",
    [TOO_FAST] = "too many messages",
    [TOO_MUCH] = "too many bytes",
    [TOO_MANY_ROUNDS] = "updates of too many rounds",
};

/* ---- names */

static bool letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Bytes of the name that `text` begins with, up to its end or a '/'; 0 if that is no name. */
static size_t name_bytes(const char *text) {
    size_t n = 0;
    if (!letter_or_digit(text[0])) return 0;
    for (; text[n] && text[n] != '/'; n++) {
        if (n == NAME_MAX_BYTES || !(letter_or_digit(text[n]) || strchr("._-", text[n]))) return 0;
    }
    return n;
}

static bool begins(const char *text, const char *head) {
    return strncmp(text, head, strlen(head)) == 0;
}

guard_role role_of(const char *user) {
    size_t n = user ? name_bytes(user) : 0;
    if (n == 0 || user[n]) return ROLE_NOBODY;
    if (strcmp(user, "aggregator") == 0) return ROLE_AGGREGATOR;
    if (begins(user, "agg-")) return ROLE_NOBODY;
    if (begins(user, "viewer-")) return ROLE_VIEWER;
    if (begins(user, "helper-")) return ROLE_HELPER;
    if (begins(user, "batch-")) return ROLE_BATCH;
    return ROLE_DEVICE;
}

bool may_connect(const char *user, const char *client_id, bool ends) {
    if (role_of(user) != ROLE_BATCH) return true;
    if (!ends || !client_id || !begins(client_id, "batch-")) return false;
    size_t n = strspn(client_id + 6, "0123456789abcdef");
    return n <= ID_MAX_BYTES && client_id[6 + n] == '\0';
}

/* ---- topics */

/* The decimal number at the start of `*text`, at most `most`; `*text` then points behind it. False if there is none. */
static bool read_number(const char **text, uint64_t most, uint32_t *out) {
    const char *s = *text;
    uint64_t value = 0;
    if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] >= '0' && s[1] <= '9')) return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        value = value * 10 + (uint64_t)(*s - '0');
        if (value > most) return false;
    }
    *text = s;
    *out = (uint32_t)value;
    return true;
}

/* Whether `rest` is one number and nothing behind it. */
static bool one_number(const char *rest, uint64_t most) {
    uint32_t number;
    return read_number(&rest, most, &number) && *rest == '\0';
}

/* Whether `rest` is two numbers, and nothing behind them. */
static bool two_numbers(const char *rest, uint64_t most, uint32_t *first) {
    return read_number(&rest, most, first) && *rest == '/' && one_number(rest + 1, LAST_PART);
}

/* What is behind "d/" or "helper/": a name and the topics below it. */
static guard_topic named_topic(const char *rest, bool helper) {
    guard_topic out = {.kind = TOPIC_OTHER, .name = rest, .name_bytes = name_bytes(rest)};
    if (out.name_bytes == 0 || rest[out.name_bytes] != '/') return (guard_topic){.kind = TOPIC_OTHER};
    const char *tail = rest + out.name_bytes + 1;
    if (helper) {
        if (begins(tail, "ask/") && one_number(tail + 4, LAST_PART))
            out.kind = TOPIC_ASK;
        else if (begins(tail, "answer/") && one_number(tail + 7, LAST_PART))
            out.kind = TOPIC_ANSWER;
    } else {
        if (strcmp(tail, "status") == 0)
            out.kind = TOPIC_STATUS;
        else if (strcmp(tail, "inbox") == 0)
            out.kind = TOPIC_INBOX;
        else if (begins(tail, "u/") && two_numbers(tail + 2, UINT32_MAX, &out.round))
            out.kind = TOPIC_UPDATE;
    }
    return out;
}

/* What is behind "enrol/": a batch, the id of a device's keys, and "ask" or "answer". */
static guard_topic enrol_topic(const char *rest) {
    guard_topic out = {.kind = TOPIC_OTHER, .name = rest, .name_bytes = name_bytes(rest)};
    if (out.name_bytes == 0 || rest[out.name_bytes] != '/') return (guard_topic){.kind = TOPIC_OTHER};
    const char *id = rest + out.name_bytes + 1;
    size_t n = name_bytes(id);
    if (n == 0 || id[n] != '/') return (guard_topic){.kind = TOPIC_OTHER};
    if (strcmp(id + n + 1, "ask") == 0)
        out.kind = TOPIC_ENROL_ASK;
    else if (strcmp(id + n + 1, "answer") == 0)
        out.kind = TOPIC_ENROL_ANSWER;
    return out;
}

guard_topic read_topic(const char *base, const char *topic) {
    size_t n = strlen(base);
    if (strncmp(topic, base, n) != 0 || topic[n] != '/') return (guard_topic){.kind = TOPIC_FOREIGN};
    const char *rest = topic + n + 1;
    uint32_t slot;
    if (begins(rest, "d/")) return named_topic(rest + 2, false);
    if (begins(rest, "helper/")) return named_topic(rest + 7, true);
    if (begins(rest, "enrol/")) return enrol_topic(rest + 6);
    guard_topic out = {.kind = TOPIC_OTHER};
    if (strcmp(rest, "manifest") == 0)
        out.kind = TOPIC_MANIFEST;
    else if (strcmp(rest, "round") == 0)
        out.kind = TOPIC_ROUND;
    else if (strcmp(rest, "aggregator") == 0)
        out.kind = TOPIC_CLAIM;
    else if (strcmp(rest, "summary") == 0)
        out.kind = TOPIC_SUMMARY;
    else if (begins(rest, "fleet/") && one_number(rest + 6, LAST_PART))
        out.kind = TOPIC_FLEET;
    else if (begins(rest, "model/") && two_numbers(rest + 6, LAST_SLOT, &slot))
        out.kind = TOPIC_MODEL;
    return out;
}

static bool own(const guard_topic *topic, const char *user) {
    return topic->name && strlen(user) == topic->name_bytes && memcmp(topic->name, user, topic->name_bytes) == 0;
}

/* ---- publish */

/* A device: its status, which may be retained, and parts of its updates, which may not. */
static guard_reason device_publishes(const guard_limits *limits, const char *user, const guard_topic *topic,
                                     uint32_t bytes, bool retain) {
    if (!own(topic, user)) return WRONG_TOPIC;
    if (topic->kind == TOPIC_STATUS) return bytes > limits->status_bytes ? TOO_LONG : OK;
    if (topic->kind != TOPIC_UPDATE) return WRONG_TOPIC;
    if (retain) return RETAINED;
    return bytes > limits->part_bytes ? TOO_LONG : OK;
}

static guard_reason helper_publishes(const guard_limits *limits, const char *user, const guard_topic *topic,
                                     uint32_t bytes, bool retain) {
    if (topic->kind != TOPIC_ANSWER || !own(topic, user)) return WRONG_TOPIC;
    if (retain) return RETAINED;
    return bytes > limits->part_bytes ? TOO_LONG : OK;
}

/* A device of a batch: what it asks for; the ACL file says that it does so under its own id. */
static guard_reason batch_publishes(const guard_limits *limits, const char *user, const guard_topic *topic,
                                    uint32_t bytes, bool retain) {
    if (topic->kind != TOPIC_ENROL_ASK || !own(topic, user)) return WRONG_TOPIC;
    if (retain) return RETAINED;
    return bytes > limits->status_bytes ? TOO_LONG : OK;
}

/* The aggregator: what is its own, and an empty retained message anywhere, which clears what others have retained. */
static guard_reason aggregator_publishes(const guard_topic *topic, uint32_t bytes, bool retain) {
    if (topic->kind == TOPIC_FOREIGN) return WRONG_TOPIC;
    if (retain && bytes == 0) return OK;
    switch (topic->kind) {
    case TOPIC_MANIFEST:
    case TOPIC_ROUND:
    case TOPIC_CLAIM:
    case TOPIC_SUMMARY:
    case TOPIC_FLEET:
    case TOPIC_MODEL: return OK;
    case TOPIC_INBOX:
    case TOPIC_ENROL_ANSWER:
    case TOPIC_ASK: return retain ? RETAINED : OK;
    default: return WRONG_TOPIC;
    }
}

guard_reason check_publish(const guard_limits *limits, guard_role role, const char *user, const guard_topic *topic,
                           uint32_t bytes, bool retain) {
    switch (role) {
    case ROLE_DEVICE: return device_publishes(limits, user, topic, bytes, retain);
    case ROLE_HELPER: return helper_publishes(limits, user, topic, bytes, retain);
    case ROLE_BATCH: return batch_publishes(limits, user, topic, bytes, retain);
    case ROLE_AGGREGATOR: return aggregator_publishes(topic, bytes, retain);
    case ROLE_VIEWER: return WRONG_TOPIC;
    case ROLE_NOBODY: break;
    }
    return NO_NAME;
}

/* ---- subscribe */

static bool for_all(guard_kind kind) {
    return kind == TOPIC_MANIFEST || kind == TOPIC_ROUND || kind == TOPIC_MODEL;
}

/* Whether `filter` is `base`, a '/' and `rest`. */
static bool is(const char *base, const char *filter, const char *rest) {
    size_t n = strlen(base);
    return strncmp(filter, base, n) == 0 && filter[n] == '/' && strcmp(filter + n + 1, rest) == 0;
}

static bool viewer_reads(const char *base, const char *filter, guard_kind kind) {
    return for_all(kind) || kind == TOPIC_CLAIM || kind == TOPIC_SUMMARY || kind == TOPIC_FLEET ||
           kind == TOPIC_STATUS || is(base, filter, "fleet/+") || is(base, filter, "d/+/status");
}

/* Its asks: all parts at once, since it does not know beforehand how many they are. */
static bool helper_reads(const char *base, const char *user, const char *filter, guard_kind kind) {
    char own_asks[BASE_MAX_BYTES + NAME_MAX_BYTES + sizeof "/helper//ask/+"];
    if (for_all(kind)) return true;
    int n = snprintf(own_asks, sizeof own_asks, "%s/helper/%s/ask/+", base, user);
    return n > 0 && (size_t)n < sizeof own_asks && strcmp(filter, own_asks) == 0;
}

guard_reason check_subscribe(const guard_limits *limits, guard_role role, const char *user, const char *filter,
                             int held) {
    guard_topic topic = read_topic(limits->base,
                                   filter); /* a wildcard is in no topic, so only exact filters have a kind */
    bool good = false;
    switch (role) {
    case ROLE_NOBODY: return NO_NAME;
    case ROLE_AGGREGATOR: return topic.kind == TOPIC_FOREIGN ? WRONG_TOPIC : OK;
    case ROLE_VIEWER: good = viewer_reads(limits->base, filter, topic.kind); break;
    case ROLE_HELPER: good = helper_reads(limits->base, user, filter, topic.kind); break;
    case ROLE_BATCH: good = topic.kind == TOPIC_ENROL_ANSWER && own(&topic, user); break;
    case ROLE_DEVICE:
        good = for_all(topic.kind) || ((topic.kind == TOPIC_INBOX || topic.kind == TOPIC_STATUS) && own(&topic, user));
        break;
    }
    if (!good) return WRONG_TOPIC;
    return held >= (int)limits->subscriptions ? TOO_MANY_SUBS : OK;
}
