/* ended - applications and sessions that went away: those whose leases the
 * sweeper has still to mark, and, for a while, those that a mint under way
 * has to ask for before it hands out a key. Thread-safe. */
#ifndef HSMINT_CORE_ENDED_H
#define HSMINT_CORE_ENDED_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct ended_entry {
    struct ended_entry *next;
    char *application;
    int64_t session; /* 0: the whole application */
    int64_t at_ms;   /* monotonic */
    bool marked;     /* its leases are in state revoking */
};
struct ended {
    pthread_mutex_t lock;
    struct ended_entry *first;
};
#define ENDED_INIT                                                             \
    {                                                                          \
        PTHREAD_MUTEX_INITIALIZER, NULL                                        \
    }

void ended_add(struct ended *t, const char *application, int64_t session,
               int64_t now_ms);
/* Did it end at or after `since_ms`? */
bool ended_since(struct ended *t, const char *application, int64_t session,
                 int64_t since_ms);
/* One that is not marked yet: *application is the caller's. */
bool ended_next(struct ended *t, char **application, int64_t *session);
void ended_mark(struct ended *t, const char *application, int64_t session);
/* Forgets marked ones that ended before. */
void ended_prune(struct ended *t, int64_t before_ms);
void ended_clear(struct ended *t);

#endif
