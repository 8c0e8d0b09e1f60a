/* release - a kept value is given to an application: the first time is
 * recorded, before it is given. Thread-safe. */
#ifndef HSMINT_CORE_RELEASE_H
#define HSMINT_CORE_RELEASE_H

#include "module/core/core.h"

#include <pthread.h>

/* Who got which value lately. One that is pushed out is recorded once more. */
#define RELEASES_KEPT 4096
struct release_mark {
    uint8_t bytes[16];
};
struct releases {
    pthread_mutex_t lock;
    struct release_mark kept[RELEASES_KEPT];
};
#define RELEASES_INIT                                                          \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER                                      \
    }

/* Not OK: it is not recorded, and must not be given. */
MUST_CHECK enum code release_record(struct core *c, const struct caller *by,
                                    const struct store_lease *l,
                                    struct error *e);

#endif
