/* rules.h: what a client may publish and subscribe to by its role, beyond what an acl_file can say.

   Pure functions of names, topics and sizes: no clock, no memory, no mosquitto. They forbid or leave it to the ACL
   file; none of them grants anything. */
#ifndef GUARD_RULES_H
#define GUARD_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_MAX_BYTES 64  /* of a client's name, as in edgefl/protocol/topics.py */
#define BASE_MAX_BYTES 113 /* "{root}/{federation}": 64 + 1 + 48 */
#define ID_MAX_BYTES 16   /* of a batch's device: what is behind "batch-" in its client id */
#define LAST_PART 65534
#define LAST_SLOT 65535

typedef enum { ROLE_NOBODY, ROLE_AGGREGATOR, ROLE_VIEWER, ROLE_HELPER, ROLE_BATCH, ROLE_DEVICE } guard_role;

/* Why something is forbidden. NAMES of these are in rules.c. */
typedef enum {
    OK,
    NO_NAME,       /* its name is no client's name of a federation */
    REVOKED,       /* it is on the list of revoked names */
    WRONG_TOPIC,   /* its role has nothing to do with that topic */
    RETAINED,      /* retained where nothing may be retained */
    TOO_LONG,      /* longer than any honest message on that topic */
    TOO_MANY_SUBS, /* more subscriptions at a time than an honest device has */
    TOO_FAST,      /* more messages than its budget has */
    TOO_MUCH,      /* more bytes than its budget has */
    TOO_MANY_ROUNDS,
    REASONS
} guard_reason;

extern const char *const REASON_TEXT[REASONS];

typedef struct {
    char base[BASE_MAX_BYTES + 1];
    uint32_t part_bytes, status_bytes, subscriptions;
} guard_limits;

typedef enum {
    TOPIC_OTHER, /* inside the federation, and nothing that this file knows */
    TOPIC_MANIFEST,
    TOPIC_ROUND,
    TOPIC_CLAIM,
    TOPIC_SUMMARY,
    TOPIC_FLEET,
    TOPIC_MODEL,
    TOPIC_STATUS,
    TOPIC_UPDATE,
    TOPIC_INBOX,
    TOPIC_ASK,
    TOPIC_ANSWER,
    TOPIC_ENROL_ASK,    /* of a batch: what its devices ask for, */
    TOPIC_ENROL_ANSWER, /* and what they are answered */
    TOPIC_FOREIGN /* outside the federation */
} guard_kind;

typedef struct {
    guard_kind kind;
    const char *name; /* whose topic it is, (name_bytes), not terminated; NULL where it is nobody's */
    size_t name_bytes;
    uint32_t round; /* of an update */
} guard_topic;

/* The role that a user name stands for; ROLE_NOBODY for NULL and for what is no client's name. */
guard_role role_of(const char *user);

/* Whether a client that came with a password may have this client id, and a session that `ends` with its connection.
   The devices of a batch have ids of their own, and take nobody's connection; and they leave no session behind:
   a holder of the token could make any number of those. */
bool may_connect(const char *user, const char *client_id, bool ends);

/* What `topic` is. Numbers in it have no leading zeros and are in range, or it is TOPIC_OTHER. */
guard_topic read_topic(const char *base, const char *topic);

/* Whether `user` may publish `bytes` on `topic`: OK leaves it to the ACL file. */
guard_reason check_publish(const guard_limits *limits, guard_role role, const char *user, const guard_topic *topic,
                           uint32_t bytes, bool retain);

/* Whether `user`, which has `held` subscriptions, may subscribe to `filter`: OK leaves it to the ACL file. */
guard_reason check_subscribe(const guard_limits *limits, guard_role role, const char *user, const char *filter,
                             int held);

#endif
