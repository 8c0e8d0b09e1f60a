/* warnings - what an operator should know and do: told by status, and each
 * logged once when it comes up. Thread-safe. */
#ifndef HSMINT_CORE_WARNINGS_H
#define HSMINT_CORE_WARNINGS_H

#include "common/error.h"
#include "common/json.h"

#include <pthread.h>
#include <stdbool.h>

struct warning;
struct warnings {
    pthread_mutex_t lock;
    struct warning *first;
};
#define WARNINGS_INIT                                                          \
    {                                                                          \
        PTHREAD_MUTEX_INITIALIZER, NULL                                        \
    }

/* id: "provider-expiry"; object: what it is about, e.g. an organisation. */
void warnings_raise(struct warnings *w, const char *id, const char *object,
                    const char *remedy, const char *fmt, ...) PRINTF(5, 6);
void warnings_drop(struct warnings *w, const char *id, const char *object);
bool warnings_has(struct warnings *w, const char *id, const char *object);
/* [{id, object, text, remedy}]; NULL: no memory. */
json_t *warnings_json(struct warnings *w);
void warnings_clear(struct warnings *w);

#endif
