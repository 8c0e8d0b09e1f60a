/* expiry - whether an organisation's service ends keys by itself. What it
 * ignored or refused is remembered in the store, so that a restart neither
 * forgets the alarm nor asks twice for each mint; a service that refused is
 * asked again once every EXPIRY_AGAIN_MS. Thread-safe. */
#ifndef HSMINT_CORE_EXPIRY_H
#define HSMINT_CORE_EXPIRY_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct core;

#define EXPIRY_AGAIN_MS 3600000

enum expiry { EXPIRY_HONOURED, EXPIRY_IGNORED, EXPIRY_REFUSED, EXPIRIES };

struct expiry_org {
    char name[64];
    enum expiry known;
    int64_t asked_ms; /* monotonic; 0: not since the start */
};
struct expiry_memory {
    pthread_mutex_t lock; /* guards all below */
    struct expiry_org *orgs;
    size_t n;
};
#define EXPIRY_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* Reads what is remembered and raises its alarms. */
MUST_CHECK enum code expiry_open(struct core *c, struct error *e);
void expiry_clear(struct core *c);
/* Is expires_in_seconds to be sent with the next creation? */
bool expiry_is_asked(struct core *c, const char *org);
/* What the service did. Remembered where it is new; if that fails, it is only
 * logged: the next mint finds it out again. */
void expiry_note(struct core *c, const char *org, enum expiry what);

#endif
