#include "denied.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
    return strcmp(a, b);
}

static bool changed(const struct stat *a, const struct stat *b) {
    return a->st_mtim.tv_sec != b->st_mtim.tv_sec || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec ||
           a->st_size != b->st_size || a->st_ino != b->st_ino;
}

/* Append one line without its end to the list; a reason if it can't be. Empty lines are left out. */
static const char *append(guard_denied *list, size_t *room, const char *line) {
    size_t bytes = strlen(line);
    if (bytes == 0) return NULL;
    if (role_of(line) == ROLE_NOBODY) return "a line is no client's name";
    if (list->count == DENIED_MOST) return "it has too many names";
    if (list->count == *room) {
        size_t more = *room ? *room * 2 : 64;
        void *bigger = realloc(list->names, more * sizeof *list->names);
        if (!bigger) return "out of memory";
        list->names = bigger;
        *room = more;
    }
    memcpy(list->names[list->count++], line, bytes + 1);
    return NULL;
}

static const char *read_names(FILE *file, guard_denied *list) {
    char line[NAME_MAX_BYTES + 3]; /* with "\r\n" */
    size_t room = 0;
    while (fgets(line, sizeof line, file)) {
        size_t bytes = strcspn(line, "\r\n");
        if (!line[bytes] && !feof(file)) return "a line is too long for a client's name";
        line[bytes] = '\0';
        const char *wrong = append(list, &room, line);
        if (wrong) return wrong;
    }
    return ferror(file) ? "it can't be read" : NULL;
}

guard_denied_news denied_read(guard_denied *denied, const char **why) {
    FILE *file = fopen(denied->path, "r");
    guard_denied list = {.path = denied->path};
    if (!file) return *why = strerror(errno), DENIED_FAILED;
    *why = fstat(fileno(file), &list.seen) == 0 ? read_names(file, &list) : strerror(errno);
    fclose(file);
    if (*why) {
        free(list.names);
        return DENIED_FAILED;
    }
    if (list.count) qsort(list.names, list.count, sizeof *list.names, compare);
    free(denied->names);
    *denied = list;
    return DENIED_READ;
}

guard_denied_news denied_look(guard_denied *denied, const char **why) {
    struct stat now;
    if (stat(denied->path, &now) != 0) return *why = strerror(errno), DENIED_FAILED;
    if (!changed(&now, &denied->seen)) return DENIED_SAME;
    bool settled = !changed(&now, &denied->pending);
    denied->pending = now;
    return settled ? denied_read(denied, why) : DENIED_SAME;
}

bool denied_has(const guard_denied *denied, const char *user) {
    return denied->count && bsearch(user, denied->names, denied->count, sizeof *denied->names, compare);
}

void denied_close(guard_denied *denied) {
    free(denied->names);
    denied->names = NULL;
    denied->count = 0;
}
