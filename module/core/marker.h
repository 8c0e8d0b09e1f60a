/* marker - the end of a service account's name that only this instance could
 * have made: 18 characters from the keeper's HMAC, fetched in batches. */
#ifndef HSMINT_CORE_MARKER_H
#define HSMINT_CORE_MARKER_H

#include "common/error.h"
#include "module/core/template.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#define MARKER_BATCH 64

struct core;
struct markers {
    pthread_mutex_t lock;
    char text[MARKER_BATCH][TEMPLATE_MARKER_LEN + 1];
    int n;
};
#define MARKERS_INIT                                                           \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .n = 0                              \
    }

/* One that was never given before. */
MUST_CHECK enum code marker_take(struct core *c,
                                 char marker[TEMPLATE_MARKER_LEN + 1],
                                 struct error *e);

/* Those that were not given yet are of no use: the HMAC key is another one. */
void markers_forget(struct core *c);

/* Does it end as names with a marker do? Whose, it does not say. */
bool marker_may_be(const char *name);
/* ours[i]: names[i] ends in a marker that this instance made. */
MUST_CHECK enum code marker_check(struct core *c, const char *const *names,
                                  size_t n, bool *ours, struct error *e);

#endif
