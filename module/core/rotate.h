/* rotate - a new admin key takes the place of the old one, inside the
 * boundary: the daemon sees sealed keys and ids, never a key.
 *
 * On command: makes, proves and takes the new key, then returns; a thread
 * deletes the old one once calls in flight have ended, and sees it refused. It
 * also goes on, after whatever end the daemon had, where rotation.h's document
 * says. The last key that works is never given up, and no key of ours but the
 * current one is left in the end.
 */
#ifndef HSMINT_CORE_ROTATE_H
#define HSMINT_CORE_ROTATE_H

#include "common/error.h"

#include <pthread.h>
#include <stdbool.h>

struct core;

struct rotate {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool started, stop, poked;
};
#define ROTATE_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

MUST_CHECK enum code rotate_start(struct core *c, struct error *e);
void rotate_stop(struct core *c);

#endif
