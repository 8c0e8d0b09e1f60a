/* names - of users and groups, by number, as the host tells them; kept for a
 * minute. Thread-safe; no lock is held while the host is asked, which may take
 * long where it asks others. */
#ifndef HSMINT_CORE_NAMES_H
#define HSMINT_CORE_NAMES_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum names_kind { NAMES_USER, NAMES_GROUP };

#define NAMES_KEPT 512
struct names_entry {
    enum names_kind kind;
    uint32_t id;
    int64_t until_ms; /* monotonic; 0: empty */
    char *name;       /* NULL: it has none */
};
struct name_cache {
    pthread_mutex_t lock;
    struct names_entry kept[NAMES_KEPT];
};
#define NAMES_INIT                                                             \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }
void names_clear(struct name_cache *n);
void names_forget(struct name_cache *n); /* on reload */

/* *name is the caller's, NULL if the number has none. Fails where that cannot
 * be told. */
MUST_CHECK enum code names_of(struct name_cache *n, enum names_kind kind,
                              uint32_t id, char **name, struct error *e);
/* *found false: there is nobody of this name. Not kept. */
MUST_CHECK enum code names_number(enum names_kind kind, const char *name,
                                  uint32_t *id, bool *found, struct error *e);

#endif
