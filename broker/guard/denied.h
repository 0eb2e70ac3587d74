/* denied.h: the list of revoked names, from a file of one name a line that is read again when it changes. */
#ifndef GUARD_DENIED_H
#define GUARD_DENIED_H

#include "rules.h"

#include <sys/stat.h>

#define DENIED_MOST 1000000 /* names; a file that has more is not read */

typedef struct {
    const char *path;
    char (*names)[NAME_MAX_BYTES + 1]; /* (count,) sorted */
    size_t count;
    struct stat seen;    /* of the file when it was last read */
    struct stat pending; /* of one that has changed since, and is read once it stays the same */
} guard_denied;

typedef enum { DENIED_SAME, DENIED_READ, DENIED_FAILED } guard_denied_news;

/* Read the file. On DENIED_FAILED the list is as it was, and `why` says what is wrong. */
guard_denied_news denied_read(guard_denied *denied, const char **why);

/* The same, if the file has changed since it was last read, and not since it was last looked at: one that is being
   written over is not read half. */
guard_denied_news denied_look(guard_denied *denied, const char **why);
bool denied_has(const guard_denied *denied, const char *user);
void denied_close(guard_denied *denied);

#endif
